//! One conversation with a PostgreSQL.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use aws_lc_rs::digest::Digest;
use md5::{Digest as _, Md5};

use super::scram::{Challenge, ChannelBinding, Client, Keys, Refusal};
use super::wire::{self, Message, ServerError};
use super::{DEFAULT_USER, PRODUCT, Postgres, query};
use crate::health::Verdict;
use crate::probe::conversation::{Conversation, Ending, Transport, Work};
use crate::probe::phase::{Phase, ProbeResult};
use crate::probe::server_text::{Secrets, not_of_protocol, quote_server};
use crate::probe::tls;

/// The most messages of one probe.
const MAX_MESSAGES: usize = 64;

/// The length of the longest error in the old form.
const MAX_OLD_TEXT: usize = 1000;

/// The length of the longest version that is shown.
const MAX_VERSION_LENGTH: usize = 20;

/// One conversation.
pub(super) struct Dialog {
    postgres: Arc<Postgres>,
    user: Arc<[u8]>,
    password: Option<Arc<[u8]>>,
    transport: Transport,
    /// The hash of the server's certificate, to which a login is bound.
    end_point: Option<Digest>,
    now: Instant,
    step: Step,
    /// True once the server has waited for a query, and takes a farewell.
    is_idle: bool,
    /// True once the server has sent an error. Before the end of a login it closes then.
    has_error: bool,
    messages: usize,
    version: String,
    row: Option<query::Standing>,
}

/// The message that is awaited.
enum Step {
    /// The answer to the request for TLS, a byte.
    Tls,
    /// The TLS handshake.
    Handshake,
    /// The first answer.
    Startup,
    /// The answer to a password, or the end of a login.
    Login,
    ScramFirst(Client),
    /// The keys are being derived.
    Deriving(Box<Deriving>),
    ScramLast(Client, Arc<Keys>),
    /// All after the login until the server is ready.
    Ready,
    /// The answer to the query.
    Query,
}

struct Deriving {
    client: Client,
    challenge: Challenge,
    keys: Arc<OnceLock<Keys>>,
    is_started: bool,
}

/// The effect of a message on the conversation.
type Flow = Result<Option<Step>, ProbeResult<()>>;

impl Dialog {
    pub(super) fn new(
        postgres: Arc<Postgres>,
        user: Arc<[u8]>,
        password: Option<Arc<[u8]>>,
        transport: Transport,
        now: Instant,
    ) -> Self {
        Self {
            postgres,
            user,
            password,
            transport,
            end_point: None,
            now,
            step: if transport == Transport::Tls { Step::Tls } else { Step::Startup },
            is_idle: false,
            has_error: false,
            messages: 0,
            version: String::new(),
            row: None,
        }
    }
}

impl Conversation for Dialog {
    fn begin(&mut self, output: &mut Vec<u8>) {
        match self.step {
            Step::Tls => output.extend_from_slice(wire::SSL_REQUEST),
            _ => self.write_startup(output),
        }
    }

    fn awaits_handshake(&self) -> bool {
        matches!(self.step, Step::Handshake)
    }

    fn on_certificate(&mut self, certificate: &[u8]) {
        self.end_point = self.password.as_ref().and_then(|_| tls::end_point_hash(certificate));
    }

    fn on_handshake(&mut self, output: &mut Vec<u8>) {
        self.step = Step::Startup;
        self.write_startup(output);
    }

    fn advance(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Option<ProbeResult<()>> {
        self.resume(output);
        if matches!(self.step, Step::Tls) {
            return self.on_tls_answer(input).map(Err);
        }
        loop {
            if matches!(self.step, Step::Deriving(_)) {
                return None;
            }
            let before = *input;
            let message = match wire::take_message(input) {
                Ok(None) => return self.reject_foreign(input),
                Ok(Some(message)) => message,
                Err(wire::Malformed) => return self.malformed(before).map(Err),
            };
            self.messages += 1;
            if self.messages > MAX_MESSAGES {
                return Some(Err(self.phase().fail("the server sends messages without end")));
            }
            match self.on_message(&message, before, output) {
                Ok(None) => {}
                Ok(Some(step)) => self.step = step,
                Err(result) => return Some(result),
            }
        }
    }

    fn phase(&self) -> Phase {
        match self.step {
            Step::Tls | Step::Handshake => Phase::Tls,
            Step::Startup => Phase::Startup,
            Step::Query => Phase::Role,
            _ => Phase::Auth,
        }
    }

    fn ending(&self) -> Ending {
        match (self.is_idle, self.has_error) {
            (true, _) => Ending::Farewell(wire::TERMINATE),
            (false, true) => Ending::Reset,
            (false, false) => Ending::FinReset,
        }
    }

    fn take_work(&mut self) -> Option<Work> {
        let Step::Deriving(deriving) = &mut self.step else { return None };
        if std::mem::replace(&mut deriving.is_started, true) {
            return None;
        }
        let (slot, challenge) = (deriving.keys.clone(), deriving.challenge.clone());
        let password = self.password.clone().unwrap_or_default();
        Some(Box::new(move || _ = slot.set(Keys::derive(password, challenge))))
    }
}

impl Dialog {
    fn write_startup(&self, output: &mut Vec<u8>) {
        wire::write_startup(output, &self.user, self.postgres.database.as_bytes());
    }

    /// Takes the answer to the request for TLS: exactly one byte.
    fn on_tls_answer(&mut self, input: &mut &[u8]) -> Option<Verdict> {
        let (&answer, rest) = input.split_first()?;
        *input = rest;
        match answer {
            b'S' => {
                self.step = Step::Handshake;
                None
            }
            b'N' => Some(Phase::Tls.fail("the server does not speak TLS")),
            _ => Some(
                Phase::Tls.fail("the server answered neither yes nor no to the request for TLS"),
            ),
        }
    }

    /// Continues after a derivation.
    fn resume(&mut self, output: &mut Vec<u8>) {
        let is_done = matches!(&self.step, Step::Deriving(work) if work.keys.get().is_some());
        if !is_done {
            return;
        }
        let Step::Deriving(work) = std::mem::replace(&mut self.step, Step::Login) else { return };
        let Deriving { client, keys, .. } = *work;
        let Some(keys) = Arc::into_inner(keys).and_then(OnceLock::into_inner).map(Arc::new) else {
            return;
        };
        self.postgres.keep_keys(&keys);
        self.step = prove(client, keys, output);
    }

    /// Returns the verdict on the beginning of an answer that can be of no PostgreSQL. Its length
    /// is not waited for.
    fn reject_foreign(&self, input: &[u8]) -> Option<ProbeResult<()>> {
        let &first = input.first()?;
        let is_known = !matches!(self.step, Step::Startup) || b"REvN".contains(&first);
        (!is_known).then(|| Err(self.foreign(input)))
    }

    fn secrets(&self) -> Secrets<'_> {
        let is_own = *self.user != *DEFAULT_USER;
        Secrets { user: is_own.then_some(&*self.user), password: self.password.as_deref() }
    }

    fn foreign(&self, input: &[u8]) -> Verdict {
        not_of_protocol(self.phase(), PRODUCT, input, &self.secrets())
    }

    /// Returns the verdict on what is no message. None if more of it is awaited.
    fn malformed(&self, input: &[u8]) -> Option<Verdict> {
        // A zero byte is that of a length.
        let (Step::Startup, [b'E', 1..=255, ..]) = (&self.step, input) else {
            return Some(self.foreign(input));
        };
        let text = &input[1..];
        // A server that can't start a process for a session says so in the old form: a text with
        // a zero byte at its end, and no length.
        let end = text.iter().position(|byte| *byte == 0);
        let end = end.or((text.len() >= MAX_OLD_TEXT).then_some(text.len()))?;
        Some(self.phase().fail(quote_server(text[..end].trim_ascii_end(), &self.secrets())))
    }

    fn on_message(&mut self, message: &Message, wire: &[u8], output: &mut Vec<u8>) -> Flow {
        match (message.kind, &self.step) {
            // A notice, in any place.
            (b'N', _) => Ok(None),
            // It speaks an older minor version.
            (b'v', Step::Startup) => Ok(None),
            (b'E', _) => {
                self.has_error = true;
                Err(self.on_error(&ServerError::new(message.body)))
            }
            (b'R', Step::Startup | Step::Login | Step::ScramFirst(_) | Step::ScramLast(..)) => {
                self.on_authentication(message.body, wire, output)
            }
            (b'S', Step::Ready) => {
                self.on_parameter(message.body);
                Ok(None)
            }
            (b'S' | b'K', Step::Ready | Step::Query) => Ok(None),
            (b'Z', Step::Ready) => self.on_ready(output),
            (b'T' | b'C', Step::Query) => Ok(None),
            (b'D', Step::Query) => {
                let columns = wire::columns(message.body);
                self.row = columns.and_then(|columns| query::read(&columns));
                Ok(None)
            }
            (b'Z', Step::Query) => Err(match &self.row {
                Some(row) => self.postgres.check(row, &self.version, self.now),
                None => Err(Phase::Role.fail("the server answered with no role")),
            }),
            _ => Err(Err(self.foreign(wire))),
        }
    }

    /// Returns the result of an error.
    fn on_error(&self, error: &ServerError) -> ProbeResult<()> {
        let phase = self.phase();
        let code = String::from_utf8_lossy(error.code).into_owned();
        let text = || quote_server(error.text, &self.secrets());
        let is_login = code.starts_with("28");
        if phase != Phase::Role && (is_login || code == "3D000") && !self.postgres.needs_login() {
            self.postgres.set_note(self.now);
            return Ok(());
        }
        // PgBouncer has one code for all.
        if phase != Phase::Role && (is_login || (phase == Phase::Auth && code == "08P01")) {
            return self.refused(&code);
        }
        // A right that the user lacks says nothing about the server.
        match (phase, code.as_str()) {
            (Phase::Auth, "42501") => {
                let words = "refused (42501): may the user connect to the database?";
                return Err(phase.inconclusive(words));
            }
            (Phase::Role, "42501") => {
                let words = format_args!("the user lacks a right (42501): {}", text());
                return Err(phase.inconclusive(words));
            }
            _ => {}
        }
        let what = match code.as_str() {
            "57P03" => "not ready",
            "57P01" | "57P02" => "stopping",
            "53300" => "full",
            _ => "",
        };
        // The text may name the user, which may be a secret.
        Err(match (phase, what) {
            (Phase::Auth, _) if code == "3D000" => phase.fail("no such database (3D000)"),
            (Phase::Auth, "") => phase.fail(format_args!("error {code}")),
            (Phase::Auth, what) => phase.fail(what),
            (_, "") => phase.fail(format!("{code} {}", text()).trim_start()),
            (_, what) => phase.fail(format_args!("{what}: {}", text())),
        })
    }

    /// Returns the result of a refused login.
    fn refused(&self, code: &str) -> ProbeResult<()> {
        self.postgres.credentials.expire();
        let client = match &self.step {
            Step::ScramFirst(client) | Step::ScramLast(client, _) => Some(client),
            _ => None,
        };
        let sends_binding =
            client.is_some_and(|client| !matches!(client.binding(), ChannelBinding::Unsupported));
        // A wrong password has another code.
        let question = match (code, sends_binding, self.transport) {
            ("28000", true, _) => "does a proxy or an attacker end TLS before the server?",
            ("28000", false, Transport::Tls) => "does pg_hba.conf let the user in from this host?",
            ("28000", false, Transport::Plain) => {
                "does pg_hba.conf let the user in from this host, without TLS?"
            }
            _ => "is the password right?",
        };
        Err(Phase::Auth.inconclusive(format_args!("refused ({code}): {question}")))
    }

    fn on_authentication(&mut self, mut body: &[u8], wire: &[u8], output: &mut Vec<u8>) -> Flow {
        let Some(method) = wire::take_u32(&mut body) else { return Err(Err(self.foreign(wire))) };
        let step = std::mem::replace(&mut self.step, Step::Login);
        match (method, step) {
            (0, Step::Startup | Step::Login) => Ok(Some(Step::Ready)),
            (11, Step::ScramFirst(client)) => self.on_challenge(client, body, output).map(Some),
            (12, Step::ScramLast(client, keys)) => match client.is_server_proven(&keys, body) {
                true => Ok(Some(Step::Login)),
                false => Err(Err(Phase::Auth.fail("the server does not know the password either"))),
            },
            (_, Step::Startup) if !self.postgres.needs_login() => {
                // It asks for a password, so it takes sessions. The end is that of a session that
                // has not logged in.
                self.step = Step::Startup;
                Err(Ok(()))
            }
            (_, Step::Startup) => self.log_in(method, body, output).map(Some),
            _ => Err(Err(self.foreign(wire))),
        }
    }

    /// Answers the server's request for a password.
    fn log_in(
        &mut self,
        method: u32,
        body: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Step, ProbeResult<()>> {
        let asks = |what: &str| {
            Err(Err(Phase::Auth.inconclusive(format_args!("the server asks for {what}"))))
        };
        let is_spoken = matches!(method, 3 | 5 | 10);
        let Some(password) = self.password.clone().filter(|_| is_spoken) else {
            return match method {
                3 | 5 | 10 => asks("a password, and none is given"),
                2 | 7 | 9 => asks("Kerberos, which is not spoken"),
                _ => asks(&format!("method {method}, which is not spoken")),
            };
        };
        match (method, body) {
            (3, _) if self.transport == Transport::Plain => {
                asks("the password in clear; add tls: {}")
            }
            (3, _) => {
                self.postgres.set_quick();
                wire::write_message(output, b'p', &[&password, &[0]]);
                Ok(Step::Login)
            }
            (5, salt @ [_, _, _, _]) => {
                self.postgres.set_quick();
                let answer = md5_answer(&self.user, &password, salt);
                wire::write_message(output, b'p', &[answer.as_bytes(), &[0]]);
                Ok(Step::Login)
            }
            (10, mechanisms) => match ChannelBinding::choose(mechanisms, self.end_point) {
                Some(binding) => begin_scram(binding, output),
                None => asks("a mechanism that is not spoken"),
            },
            _ => Err(Err(Phase::Auth.fail("the server's salt is malformed"))),
        }
    }

    fn on_challenge(
        &mut self,
        mut client: Client,
        message: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Step, ProbeResult<()>> {
        let challenge = client.read_challenge(message).map_err(|refusal| {
            Err(match refusal {
                Refusal::Malformed => Phase::Auth.fail("the server's SCRAM message is malformed"),
                Refusal::ForeignNonce => Phase::Auth.fail("the server answered to another login"),
                Refusal::TooManyRounds(rounds) => {
                    Phase::Auth.inconclusive(format_args!("the server asks for {rounds} rounds"))
                }
            })
        })?;
        let password = self.password.clone().unwrap_or_default();
        if let Some(keys) = self.postgres.confirm_keys(&password, &challenge) {
            return Ok(prove(client, keys, output));
        }
        let keys = Arc::new(OnceLock::new());
        Ok(Step::Deriving(Box::new(Deriving { client, challenge, keys, is_started: false })))
    }

    /// Keeps the server's version, of which nothing but digits and dots is shown.
    fn on_parameter(&mut self, body: &[u8]) {
        let Some(version) = body.strip_prefix(b"server_version\0") else { return };
        let is_shown = |byte: &&u8| byte.is_ascii_digit() || **byte == b'.';
        let shown = version.iter().take(MAX_VERSION_LENGTH).take_while(is_shown);
        self.version = shown.map(|byte| char::from(*byte)).collect();
    }

    fn on_ready(&mut self, output: &mut Vec<u8>) -> Flow {
        self.is_idle = true;
        if !self.postgres.needs_login() {
            return Err(Ok(()));
        }
        self.postgres.set_quick_if_unknown();
        let major = self.version.split('.').next().and_then(|major| major.parse().ok());
        let query = query::text(self.postgres.max_lag, major);
        wire::write_message(output, b'Q', &[query.as_bytes(), &[0]]);
        Ok(Some(Step::Query))
    }
}

fn begin_scram(binding: ChannelBinding, output: &mut Vec<u8>) -> Result<Step, ProbeResult<()>> {
    let mut nonce = [0; 18];
    aws_lc_rs::rand::fill(&mut nonce)
        .map_err(|_| Err(Phase::Auth.inconclusive("this host has no random numbers")))?;
    let client = Client::new("", &nonce, binding);
    let first = client.first();
    let length = (first.len() as u32).to_be_bytes();
    let parts = [binding.mechanism(), &[0], &length, first.as_bytes()];
    wire::write_message(output, b'p', &parts);
    Ok(Step::ScramFirst(client))
}

fn prove(client: Client, keys: Arc<Keys>, output: &mut Vec<u8>) -> Step {
    wire::write_message(output, b'p', &[client.last(&keys).as_bytes()]);
    Step::ScramLast(client, keys)
}

/// Returns the answer of the login by MD5, which old servers have.
fn md5_answer(user: &[u8], password: &[u8], salt: &[u8]) -> String {
    let hex = |parts: [&[u8]; 2]| {
        let hash = Md5::new().chain_update(parts[0]).chain_update(parts[1]).finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    format!("md5{}", hex([hex([password, user]).as_bytes(), salt]))
}
