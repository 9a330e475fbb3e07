//! One conversation with a MySQL.

use std::sync::Arc;
use std::time::Instant;

use super::auth::{self, Plugin};
use super::brake::{Attempt, LastAttempt};
use super::query::{self, Question, Replay, Standing};
use super::table::{self, Answer, Read, RowRead, Table};
use super::wire::{self, Greeting, Malformed, Packet, ServerError, capability};
use super::{Mysql, PRODUCT, UserAndPassword, is_mariadb, replica_word, verdicts};
use crate::health::Verdict;
use crate::probe::conversation::{Conversation, Ending, MAX_RECEIVED, Transport};
use crate::probe::observation::Lag;
use crate::probe::phase::{Phase, ProbeResult};
use crate::probe::server_text::{Secrets, not_of_protocol, quote_server};

/// The most packets of one probe. A replica has up to 256 primaries, and a row for each.
const MAX_PACKETS: usize = 512;

/// The most bytes that are read in a probe that asks for the lag. Each row holds two sets of
/// transactions, which can be 100 KiB and more.
const MAX_REPLICATION_STATE: usize = 4 << 20;

/// The most packets of a login.
const MAX_LOGIN_PACKETS: usize = 20;

/// The command byte of a query.
const QUERY: u8 = 3;

/// One conversation.
pub(super) struct Dialog {
    mysql: Arc<Mysql>,
    user: Arc<[u8]>,
    password: Option<Arc<[u8]>>,
    transport: Transport,
    now: Instant,
    attempt: Attempt,
    step: Step,
    packets: usize,
    version: String,
    scramble: auth::Scramble,
    standing: Option<Standing>,
}

/// The packet that is awaited.
enum Step {
    Greeting,
    /// The TLS handshake, and then the login by this way.
    Handshake(Plugin),
    Login(Login),
    Answer(Question, Answer),
}

/// The part of a login that is under way.
enum Login {
    /// The answer to the scramble has been sent.
    Answered(Plugin),
    /// The server's key has been asked for.
    AwaitingKey,
    /// Nothing but the end is awaited.
    Finishing,
    /// A wrong answer has been sent. This is the verdict once the server has refused it.
    GivenUp(Verdict),
}

impl Login {
    /// Returns the login after a wrong answer to another question than that for the password.
    fn give_up(self) -> Self {
        match self {
            Login::GivenUp(_) => self,
            _ => Login::GivenUp(Phase::Auth.inconclusive(verdicts::MORE)),
        }
    }
}

/// The effect of a packet on the conversation.
type Flow = Result<Step, ProbeResult<()>>;

impl Dialog {
    pub(super) fn new(
        mysql: Arc<Mysql>,
        attempt: Attempt,
        (user, password): UserAndPassword,
        transport: Transport,
        now: Instant,
    ) -> Self {
        mysql.set_last_attempt(LastAttempt::Failed);
        Self {
            mysql,
            user,
            password,
            transport,
            now,
            attempt: attempt.connected(),
            step: Step::Greeting,
            packets: 0,
            version: String::new(),
            scramble: [0; wire::SCRAMBLE_LENGTH],
            standing: None,
        }
    }
}

impl Conversation for Dialog {
    fn begin(&mut self, _: &mut Vec<u8>) {}

    fn advance(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Option<ProbeResult<()>> {
        while !self.awaits_handshake() {
            let before = *input;
            let packet = match self.read_row(input) {
                RowRead::Waiting => return None,
                RowRead::Malformed => return Some(Err(self.malformed(before))),
                RowRead::Whole => None,
                RowRead::None => match wire::take_packet(input) {
                    Ok(None) => return self.reject_foreign(input),
                    Ok(packet) => packet,
                    Err(malformed) => return Some(Err(self.on_malformed(&malformed, before))),
                },
            };
            self.packets += 1;
            let most =
                if matches!(self.step, Step::Answer(..)) { MAX_PACKETS } else { MAX_LOGIN_PACKETS };
            if self.packets > most {
                return Some(Err(self.phase().fail("the server sends messages without end")));
            }
            let flow = packet.map(|packet| self.on_packet(&packet, before, output));
            match flow {
                Some(Ok(step)) => self.step = step,
                Some(Err(result)) => return Some(result),
                None => {}
            }
        }
        None
    }

    fn phase(&self) -> Phase {
        match &self.step {
            Step::Greeting => Phase::Greeting,
            Step::Handshake(_) => Phase::Tls,
            Step::Login(_) => Phase::Auth,
            Step::Answer(Question::Lag(_), _) => Phase::Lag,
            Step::Answer(..) => Phase::Role,
        }
    }

    fn ending(&self) -> Ending {
        match self.step {
            Step::Answer(..) => Ending::Farewell(wire::QUIT),
            _ => Ending::Reset,
        }
    }

    fn awaits_handshake(&self) -> bool {
        matches!(self.step, Step::Handshake(_))
    }

    fn on_handshake(&mut self, output: &mut Vec<u8>) {
        if let Step::Handshake(plugin) = self.step {
            self.step = self.log_in(plugin, 2, output);
        }
    }

    fn max_received(&self) -> usize {
        match self.step {
            Step::Answer(Question::Lag(_), _) => MAX_REPLICATION_STATE,
            _ => MAX_RECEIVED,
        }
    }

    fn on_failure(&mut self, verdict: &Verdict) {
        self.attempt.on_failure(verdict);
    }
}

impl Dialog {
    /// Takes as much of a row as has come, if one comes now.
    fn read_row(&mut self, input: &mut &[u8]) -> RowRead {
        match &mut self.step {
            Step::Answer(_, answer) => answer.read_row(input),
            _ => RowRead::None,
        }
    }

    /// Returns the verdict on the beginning of a greeting that can be of no MySQL. Its end is not
    /// waited for.
    fn reject_foreign(&self, input: &[u8]) -> Option<ProbeResult<()>> {
        let &first = input.get(4)?;
        let is_known = !matches!(self.step, Step::Greeting) || matches!(first, 9 | 10 | 0xff);
        (!is_known).then(|| Err(self.foreign(input)))
    }

    fn foreign(&self, input: &[u8]) -> Verdict {
        not_of_protocol(self.phase(), PRODUCT, input, &self.secrets())
    }

    fn on_malformed(&self, malformed: &Malformed, input: &[u8]) -> Verdict {
        match (malformed, &self.step) {
            (Malformed::TooLong, Step::Answer(..)) => self.phase().fail("a message is over 16 KiB"),
            _ => self.malformed(input),
        }
    }

    fn malformed(&self, input: &[u8]) -> Verdict {
        match self.step {
            // The text could name the user.
            Step::Login(_) => Phase::Auth.fail("the server's answer is malformed"),
            _ => self.foreign(input),
        }
    }

    fn on_packet(&mut self, packet: &Packet, wire: &[u8], output: &mut Vec<u8>) -> Flow {
        let body = packet.body;
        if let Some(error) = ServerError::read(body) {
            return self.on_error(&error, output);
        }
        let nonsense = |dialog: &Self| Err(Err(dialog.malformed(wire)));
        match std::mem::replace(&mut self.step, Step::Greeting) {
            Step::Greeting => self.on_greeting(body, wire, output),
            Step::Login(login) => {
                let step = self.on_login(login, packet, output);
                step.unwrap_or_else(|| {
                    self.step = Step::Login(Login::Finishing);
                    nonsense(self)
                })
            }
            Step::Answer(question, answer) => match table::read(answer, body, question.columns()) {
                Some(Read::More(answer)) => Ok(Step::Answer(question, answer)),
                Some(Read::Whole(table)) => {
                    self.step = Step::Answer(question, Answer::Head);
                    self.on_table(question, &table, wire, output)
                }
                None => {
                    self.step = Step::Answer(question, Answer::Head);
                    nonsense(self)
                }
            },
            step @ Step::Handshake(_) => Ok(step),
        }
    }

    fn on_greeting(&mut self, body: &[u8], wire: &[u8], output: &mut Vec<u8>) -> Flow {
        // It has learnt of the client, and counts what does not end by its own word. So do versions
        // whose greeting is another.
        if matches!(body.first(), Some(9 | 10)) {
            self.attempt.open(Phase::Auth);
        }
        let Some(greeting) = Greeting::read(body) else { return Err(Err(self.foreign(wire))) };
        let needed = capability::PROTOCOL_41 | capability::PLUGIN_AUTH;
        if greeting.capabilities & needed != needed {
            return Err(Err(Phase::Greeting.fail("the server is older than MySQL 5.5")));
        }
        let has_tls = greeting.has_tls();
        let plugin = match Plugin::new(&greeting.plugin) {
            plugin @ (Plugin::Native | Plugin::CachingSha2) => plugin,
            _ => Plugin::Native,
        };
        self.version = greeting.version;
        self.scramble = greeting.scramble;
        match (self.transport, has_tls) {
            (Transport::Plain, _) => Ok(self.log_in(plugin, 1, output)),
            (Transport::Tls, false) => Err(Err(Phase::Tls.fail("the server does not speak TLS"))),
            (Transport::Tls, true) => {
                self.attempt.open(Phase::Tls);
                wire::write_tls_request(output, 1, self.capabilities());
                Ok(Step::Handshake(plugin))
            }
        }
    }

    fn capabilities(&self) -> u32 {
        let tls = if self.transport == Transport::Tls { capability::SSL } else { 0 };
        capability::LONG_PASSWORD
            | capability::PROTOCOL_41
            | capability::SECURE_CONNECTION
            | capability::PLUGIN_AUTH
            | tls
    }

    fn password(&self) -> &[u8] {
        self.password.as_deref().unwrap_or_default()
    }

    /// Writes the login by a way that needs only the scramble.
    fn log_in(&mut self, plugin: Plugin, sequence: u8, output: &mut Vec<u8>) -> Step {
        self.attempt.open(Phase::Auth);
        let answer = match plugin {
            Plugin::CachingSha2 => auth::caching_sha2(self.password(), &self.scramble),
            _ => auth::native(self.password(), &self.scramble),
        };
        let (capabilities, plugin_name) = (self.capabilities(), plugin.name());
        let login =
            wire::Login { capabilities, user: &self.user, answer: &answer, plugin: plugin_name };
        login.write(output, sequence);
        Step::Login(Login::Answered(plugin))
    }

    /// Continues a login. Returns none if the packet does not belong there.
    fn on_login(&mut self, login: Login, packet: &Packet, output: &mut Vec<u8>) -> Option<Flow> {
        let sequence = packet.sequence.wrapping_add(1);
        let mut answer = |bytes: &[u8]| wire::write_packet(output, sequence, &[bytes]);
        match (packet.body, login) {
            ([0, ..], _) => Some(Ok(self.on_logged_in(output))),
            ([0xfe, request @ ..], _) => Some(self.on_switch(request, sequence, output)),
            // What it knows of the password is right.
            ([1, 3], Login::Answered(Plugin::CachingSha2)) => {
                Some(Ok(Step::Login(Login::Finishing)))
            }
            ([1, 4], Login::Answered(Plugin::CachingSha2)) => {
                let step = match (self.transport, self.mysql.fetches_public_key) {
                    (Transport::Tls, _) => {
                        answer(&auth::clear(self.password()));
                        Login::Finishing
                    }
                    (Transport::Plain, true) => {
                        answer(&[2]);
                        Login::AwaitingKey
                    }
                    (Transport::Plain, false) => {
                        answer(Plugin::CachingSha2.wrong_answer());
                        Login::GivenUp(Phase::Auth.inconclusive(verdicts::COLD))
                    }
                };
                Some(Ok(Step::Login(step)))
            }
            ([1, pem @ ..], Login::AwaitingKey) => {
                let step = match auth::encrypt(self.password(), &self.scramble, pem) {
                    Ok(encrypted) => {
                        answer(&encrypted);
                        Login::Finishing
                    }
                    Err(auth::UnusableKey) => {
                        answer(Plugin::CachingSha2.wrong_answer());
                        Login::GivenUp(Phase::Auth.fail("the server's public key is not usable"))
                    }
                };
                Some(Ok(Step::Login(step)))
            }
            // A question of PAM, which asks as often as it likes.
            ([2..=5, ..], login @ (Login::GivenUp(_) | Login::Answered(Plugin::Clear))) => {
                answer(Plugin::Clear.wrong_answer());
                Some(Ok(Step::Login(login.give_up())))
            }
            _ => None,
        }
    }

    /// Answers the server's request to log in by another way.
    fn on_switch(&mut self, mut request: &[u8], sequence: u8, output: &mut Vec<u8>) -> Flow {
        let name = wire::take_text(&mut request).unwrap_or(b"mysql_old_password");
        let plugin = Plugin::new(name);
        let scramble = request.first_chunk().copied();
        let answer = match (plugin, scramble, self.transport) {
            (Plugin::Native, Some(scramble), _) => Some(auth::native(self.password(), &scramble)),
            (Plugin::CachingSha2, Some(scramble), _) => {
                Some(auth::caching_sha2(self.password(), &scramble))
            }
            (Plugin::Sha256 | Plugin::Clear, _, Transport::Tls) => {
                Some(auth::clear(self.password()))
            }
            _ => None,
        };
        self.scramble = scramble.unwrap_or(self.scramble);
        match answer {
            Some(answer) => {
                wire::write_packet(output, sequence, &[&answer]);
                Ok(Step::Login(Login::Answered(plugin)))
            }
            None => {
                wire::write_packet(output, sequence, &[plugin.wrong_answer()]);
                let verdict = verdicts::not_spoken(plugin, name);
                Ok(Step::Login(Login::GivenUp(verdict)))
            }
        }
    }

    fn on_logged_in(&mut self, output: &mut Vec<u8>) -> Step {
        self.attempt.succeed();
        self.mysql.set_last_attempt(LastAttempt::LoggedIn);
        let variables = self.mysql.variables(&self.version);
        ask(Question::Writable(variables), output)
    }

    fn on_error(&mut self, error: &ServerError, output: &mut Vec<u8>) -> Flow {
        self.attempt.close();
        if !matches!(self.step, Step::Answer(..)) {
            self.mysql.set_last_attempt(LastAttempt::Unknown);
        }
        let code = error.code;
        let result = match std::mem::replace(&mut self.step, Step::Greeting) {
            Step::Login(Login::GivenUp(verdict)) => {
                self.mysql.credentials.expire();
                verdict
            }
            Step::Login(_) => {
                self.step = Step::Login(Login::Finishing);
                if verdicts::is_refusal(code) {
                    self.mysql.credentials.expire();
                }
                verdicts::on_login_error(code, self.password.as_deref())
            }
            Step::Answer(question, answer) => {
                if let (Question::Writable(variables), 1193) = (question, code)
                    && let Some(fewer) = variables.fewer()
                {
                    self.mysql.set_variables(&self.version, fewer);
                    return Ok(ask(Question::Writable(fewer), output));
                }
                self.step = Step::Answer(question, answer);
                self.on_query_error(question, error)
            }
            _ => verdicts::on_early_error(error, &self.secrets()),
        };
        Err(Err(result))
    }

    fn on_query_error(&self, question: Question, error: &ServerError) -> Verdict {
        match (question, error.code) {
            (Question::Lag(_), 1227) => {
                let right = match is_mariadb(&self.version) {
                    true => "SLAVE MONITOR, or REPLICATION CLIENT before MariaDB 10.5",
                    false => "REPLICATION CLIENT",
                };
                Phase::Lag.inconclusive(format_args!("the user lacks the right {right}"))
            }
            (_, 1820) => self.phase().inconclusive("the password has expired (1820)"),
            (_, code) => {
                let text = quote_server(error.text, &self.secrets());
                self.phase().fail(format_args!("{code} {text}"))
            }
        }
    }

    fn secrets(&self) -> Secrets<'_> {
        Secrets { user: Some(&self.user), password: self.password.as_deref() }
    }

    fn on_table(
        &mut self,
        question: Question,
        table: &Table,
        wire: &[u8],
        output: &mut Vec<u8>,
    ) -> Flow {
        match question {
            Question::Writable(variables) => {
                let Some(standing) = query::standing(table) else {
                    return Err(Err(self.foreign(wire)));
                };
                self.mysql.set_variables(&self.version, variables);
                self.standing = Some(standing);
                if standing.is_galera {
                    return Ok(ask(Question::Galera, output));
                }
                self.on_standing(standing, output)
            }
            Question::Galera => {
                let Some(standing) = self.standing else { return Err(Err(self.foreign(wire))) };
                let state = (query::galera_state(table), standing.rejects_queries);
                self.mysql.check_galera(state, &self.version, self.now).map_err(Err)?;
                self.on_standing(standing, output)
            }
            Question::Lag(_) => {
                let Some(standing) = self.standing else { return Err(Err(self.foreign(wire))) };
                Err(self.finish(standing, query::replay(table)))
            }
        }
    }

    /// Asks for the lag of a replica that has a limit, and has the result of any other server.
    fn on_standing(&mut self, standing: Standing, output: &mut Vec<u8>) -> Flow {
        if self.mysql.asks_lag(standing) {
            return Ok(ask(Question::Lag(replica_word(&self.version)), output));
        }
        Err(self.finish(standing, Replay::Running(Lag::NO_LINK)))
    }

    fn finish(&self, standing: Standing, replay: Replay) -> ProbeResult<()> {
        self.mysql.check(standing, replay, &self.version, self.now)
    }
}

fn ask(question: Question, output: &mut Vec<u8>) -> Step {
    wire::write_packet(output, 0, &[&[QUERY], question.statement().as_bytes()]);
    Step::Answer(question, Answer::Head)
}
