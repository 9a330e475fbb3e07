//! The task that asks for each name when it is due, and delivers the outcome.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Abortable, Aborted, BoxFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use super::counts::Counts;
use super::exchange::Client;
use super::feed::{ServerFeed, ServerSource};
use super::lateness::LatenessLog;
use super::lookup::{LookupResult, concurrent_questions, look_up};
use super::name::Name;
use super::queue::{Lateness, LookupQueue, NameId, Next, Urgency};
use super::suspension::SuspensionWatch;
use super::{
    Answer, Command, FAMILIES_TIMEOUT, Hashing, LookupOutcome, NameKey, UnknownReason, Wanted,
};
use crate::clock;
use crate::limits::DnsLimits;
use crate::names::Families;

/// The time within which a new name has its first outcome, even if it was not asked until then. The
/// time that the names before it take by the budget is added.
const FIRST_OUTCOME_TIMEOUT: Duration = Duration::from_secs(12);

/// The settings of the resolver.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub servers: ServerSource,
    /// The most questions a second over all names.
    pub qps: NonZeroU32,
    pub limits: DnsLimits,
}

/// The running resolver. Dropping it stops it without waiting.
#[derive(Debug)]
pub(crate) struct ResolverTask {
    task: JoinHandle<()>,
    counts: Counts,
}

impl ResolverTask {
    /// Waits until the task panics. It also ends with the monitor, which is for others to report.
    pub(crate) async fn panicked(&mut self) {
        if (&mut self.task).await.is_ok() {
            std::future::pending().await
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.clone()
    }
}

impl Drop for ResolverTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts the resolver. It calls `deliver` with each outcome, one after the other. It does nothing
/// until the first command.
pub(crate) fn start<D, F>(
    mut commands: UnboundedReceiver<Command>,
    settings: Settings,
    deliver: D,
) -> ResolverTask
where
    D: Fn(NameKey, LookupOutcome) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let counts = Counts::default();
    let counts_of_task = counts.clone();
    let task = tokio::spawn(async move {
        let Some(first) = commands.recv().await else { return };
        let mut resolver = Resolver::new(settings, counts_of_task, deliver).await;
        resolver.apply(first);
        resolver.run(commands).await;
    });
    ResolverTask { task, counts }
}

struct Resolver<D> {
    settings: Settings,
    client: Arc<Client>,
    feed: ServerFeed,
    ids: HashMap<NameKey, NameId, Hashing>,
    /// The names by ID. A free ID has none.
    names: Vec<Option<Name>>,
    free_ids: Vec<NameId>,
    queue: LookupQueue,
    /// The open lookups. They run within this task, because a task of its own for each would cost
    /// as much again.
    lookups: FuturesUnordered<Abortable<BoxFuture<'static, Finished>>>,
    /// The number of the next lookup or name.
    next_number: u32,
    /// The names that wait for their first outcome: its deadline, the name, and its number.
    first_outcomes: VecDeque<(Instant, NameId, u32)>,
    lateness: LatenessLog,
    suspension: SuspensionWatch,
    counts: Counts,
    deliver: D,
}

/// The end of a lookup.
struct Finished {
    id: NameId,
    number: u32,
    families: Families,
    result: LookupResult,
    duration: Duration,
}

impl<D, F> Resolver<D>
where
    D: Fn(NameKey, LookupOutcome) -> F,
    F: Future<Output = ()>,
{
    async fn new(settings: Settings, counts: Counts, deliver: D) -> Self {
        let feed = ServerFeed::start(&settings.servers).await;
        let now = clock::now();
        let DnsLimits { max_open_questions, spare_sockets } = settings.limits;
        Self {
            client: Arc::new(Client::new(spare_sockets, counts.clone())),
            feed,
            ids: HashMap::default(),
            names: Vec::new(),
            free_ids: Vec::new(),
            queue: LookupQueue::new(settings.qps.get(), max_open_questions, now),
            lookups: FuturesUnordered::new(),
            next_number: 0,
            first_outcomes: VecDeque::new(),
            lateness: LatenessLog::default(),
            suspension: SuspensionWatch::new(now),
            settings,
            counts,
            deliver,
        }
    }

    /// Runs until there are no more commands.
    async fn run(mut self, mut commands: UnboundedReceiver<Command>) {
        loop {
            let wake_at = self.start_due();
            tokio::select! {
                command = commands.recv() => {
                    let Some(command) = command else { return };
                    self.apply(command);
                    while let Ok(command) = commands.try_recv() {
                        self.apply(command);
                    }
                }
                Some(finished) = self.lookups.next() => self.finish(finished).await,
                () = self.feed.changed() => {
                    // Other servers may know names that have no address.
                    self.ask_all(clock::now(), Name::forget_failures);
                }
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
            let now = clock::now();
            if self.suspension.has_passed(now) {
                self.ask_all(now, |_| true);
            }
            self.deliver_overdue(now).await;
        }
    }

    /// Starts all lookups that may begin. Returns the time at which there is more to do.
    fn start_due(&mut self) -> Instant {
        let now = clock::now();
        let (wait, shortage) = loop {
            match self.queue.next(now) {
                Next::Start { id, lateness } => self.start(id, lateness, now),
                Next::Wait(wait, shortage) => break (Some(wait), shortage),
                Next::Idle(shortage) => break (None, shortage),
            }
        };
        self.lateness.set_shortage(shortage);
        let first_outcome = self.first_outcomes.front().map(|(deadline, ..)| *deadline);
        let next_due = wait.map(|wait| now + wait);
        let next_check = self.suspension.next_check();
        next_due.into_iter().chain(first_outcome).fold(next_check, Instant::min)
    }

    fn start(&mut self, id: NameId, lateness: Lateness, now: Instant) {
        let number = self.next_number();
        let name = self.names[id as usize].as_mut().expect("the queue has only known names");
        if let Lateness::By(late_by) = lateness
            && name.was_asked()
        {
            self.counts.record_late();
            self.lateness.record(late_by, self.settings.qps.get(), now);
        }
        let families = name.families_to_ask();
        let (client, servers) = (self.client.clone(), self.feed.servers().clone());
        let key = name.key.clone();
        let lookup = async move {
            let start = clock::now();
            let lookup = AssertUnwindSafe(look_up(&client, &servers, &key, families));
            let result = lookup.catch_unwind().await.unwrap_or_else(|_| {
                let reason = "a fault of the daemon; the log says where";
                LookupResult::uniform(Answer::Unknown(UnknownReason(reason.into())), families)
            });
            let duration = clock::now().saturating_duration_since(start);
            Finished { id, number, families, result, duration }
        };
        let (lookup, abort) = futures::future::abortable(lookup.boxed());
        self.lookups.push(lookup);
        name.begin_lookup(number, abort);
    }

    /// Records the end of a lookup, and delivers its outcome.
    async fn finish(&mut self, finished: Result<Finished, Aborted>) {
        // A lookup that was aborted is of a name that was removed.
        let Ok(Finished { id, number, families, result, duration }) = finished else { return };
        let name = self.names[id as usize].as_mut();
        let Some(name) = name.filter(|name| name.is_lookup(number)) else { return };
        let now = clock::now();
        let (due, next) = name.end_lookup(&result, duration, now);
        let share = concurrent_questions(name.key.kind, families);
        let share_of_next = concurrent_questions(name.key.kind, name.families_to_ask());
        let key = name.key.clone();
        self.queue.finish(id, now, due, next);
        self.queue.set_questions(id, share_of_next);
        self.queue.charge(result.queries.saturating_sub(share));
        (self.deliver)(key, outcome(result, families, now, due)).await;
    }

    fn apply(&mut self, command: Command) {
        let now = clock::now();
        match command {
            Command::Insert(key, wanted) => match self.ids.get(&key).copied() {
                Some(id) => self.change(id, wanted, now),
                None => self.insert(key, wanted, now),
            },
            Command::Remove(key) => self.remove(&key),
            Command::Hurry(key) => self.with_name(&key, |id, name, queue| {
                if name.hurry(queue.due(id), now) {
                    queue.advance(id, now, Urgency::TargetFailed);
                }
            }),
            Command::Calm(key) => self.with_name(&key, |id, name, queue| {
                if let Some(due) = name.calm() {
                    queue.reschedule(id, due, Urgency::Refresh);
                }
            }),
        }
    }

    fn with_name(
        &mut self,
        key: &NameKey,
        action: impl FnOnce(NameId, &mut Name, &mut LookupQueue),
    ) {
        let Some(id) = self.ids.get(key).copied() else { return };
        if let Some(name) = self.names[id as usize].as_mut() {
            action(id, name, &mut self.queue);
        }
    }

    fn insert(&mut self, key: NameKey, wanted: Wanted, now: Instant) {
        let number = self.next_number();
        let due = if wanted.families.is_some() { now } else { now + FAMILIES_TIMEOUT };
        let name = Name::new(key.clone(), wanted, number);
        let id = self.free_ids.pop().unwrap_or_else(|| {
            self.names.push(None);
            NameId::try_from(self.names.len() - 1).expect("fewer names than IDs")
        });
        self.queue.insert(id, concurrent_questions(key.kind, name.families_to_ask()), due);
        self.names[id as usize] = Some(name);
        self.ids.insert(key, id);
        let questions_before = 2 * self.first_outcomes.len();
        let qps = f64::from(self.settings.qps.get());
        let turn = Duration::from_secs_f64(questions_before as f64 / qps);
        self.first_outcomes.push_back((now + turn + FIRST_OUTCOME_TIMEOUT, id, number));
    }

    fn change(&mut self, id: NameId, wanted: Wanted, now: Instant) {
        let name = self.names[id as usize].as_mut().expect("a known name");
        if let Some(due) = name.change(wanted, now) {
            self.queue.advance(id, due, Urgency::Refresh);
        }
        self.queue.set_questions(id, concurrent_questions(name.key.kind, name.families_to_ask()));
    }

    fn remove(&mut self, key: &NameKey) {
        let Some(id) = self.ids.remove(key) else { return };
        self.queue.remove(id);
        // Dropping the name aborts its lookup.
        self.names[id as usize] = None;
        self.free_ids.push(id);
    }

    /// Makes those names due that `is_wanted` returns true for.
    fn ask_all(&mut self, now: Instant, is_wanted: impl Fn(&mut Name) -> bool) {
        for id in self.ids.values() {
            let Some(name) = self.names[*id as usize].as_mut() else { continue };
            if is_wanted(name) {
                name.advance(now);
                self.queue.advance(*id, now, Urgency::Refresh);
            }
        }
    }

    /// Delivers an outcome for names that were not asked in time, so that they hold up nobody.
    async fn deliver_overdue(&mut self, now: Instant) {
        while let Some((deadline, id, number)) = self.first_outcomes.front().copied() {
            let name = self.names[id as usize].as_mut();
            let waiting = name.filter(|name| name.number == number && !name.has_outcome);
            if waiting.is_some() && now < deadline {
                break;
            }
            self.first_outcomes.pop_front();
            let Some(name) = waiting else { continue };
            name.has_outcome = true;
            let reason = "not asked yet: too many questions to DNS are without an answer";
            let families = name.families_to_ask();
            let unknown = Answer::Unknown(UnknownReason(reason.into()));
            let result = LookupResult::uniform(unknown, families);
            let key = name.key.clone();
            (self.deliver)(key, outcome(result, families, now, now)).await;
        }
        if self.first_outcomes.is_empty() {
            // The start of thousands of names is over.
            self.first_outcomes = VecDeque::new();
        }
    }

    fn next_number(&mut self) -> u32 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }
}

/// Returns the outcome that a result makes.
pub(super) fn outcome(
    result: LookupResult,
    families: Families,
    at: Instant,
    next_at: Instant,
) -> LookupOutcome {
    let LookupResult { parts, ttl, aliases, skipped, server, .. } = result;
    LookupOutcome { families, parts, ttl, aliases, skipped, server, at, next_at }
}
