//! The demo (`make demo`): a real cluster stops sending connections to a database that died, and
//! follows a primary that moves by DNS.

#![allow(clippy::disallowed_methods, reason = "the demo runs in real time")]

mod support;

mod demo {
    pub(crate) mod fixture;
    pub(crate) mod names;
    pub(crate) mod screen;
}

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use demo::fixture::{Fixture, TIMEOUT, last_lost};
use demo::screen::{Mark, Screen};
use futures::FutureExt as _;
use support::binaries::Binaries;
use support::{ConnectOutcome, Database, Traffic, eventually};

/// The database that is killed.
const VICTIM: usize = 1;
/// The time without lost connections after which none is expected any more. A connection without an
/// answer is known as such after a second.
const QUIET: Duration = Duration::from_millis(2500);

fn main() -> ExitCode {
    support::sandbox::enter_with(Binaries::ControlPlane);
    let screen = Arc::new(Screen::new());
    let played = support::runtime().block_on(async {
        tokio::select! {
            played = AssertUnwindSafe(play(&screen)).catch_unwind() => Some(played),
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    screen.live(String::new());
    match played {
        Some(Ok(true)) => {
            screen.heading("All of it came true.");
            ExitCode::SUCCESS
        }
        Some(_) => {
            screen.heading("Not all of it came true.");
            ExitCode::FAILURE
        }
        None => {
            screen.heading("Stopped. The cluster and all the rest end with this program.");
            // The exit status that shells use for Ctrl-C. Only a complete demo succeeds.
            ExitCode::from(130)
        }
    }
}

/// Runs the whole demo. Returns true if every claim of its summary is true.
async fn play(screen: &Arc<Screen>) -> bool {
    screen.heading("A cluster in a sandbox: real etcd, Kubernetes API server and kube-proxy");
    let began = Instant::now();
    let mut fixture = Fixture::start().await;
    screen.at(
        began.elapsed(),
        &format!("up; Service {}/mysql at {}", fixture.namespace.name, fixture.cluster_ip),
    );
    screen.heading("The daemon runs with this config");
    for line in fixture.config.lines() {
        screen.say(&format!("    {line}"));
    }

    show_first_write(screen, &fixture).await;
    // Started only now, so that every lost connection is due to what happens to a database.
    let traffic = Arc::new(fixture.traffic());
    let ticker =
        support::runtime().spawn(tick(screen.clone(), traffic.clone(), Tally::of(&fixture)));
    let mut claims = vec![show_healthy_traffic(screen, &fixture, &traffic).await];
    let before = fixture.writes().await;
    claims.push(show_failure(screen, &mut fixture, &traffic, Fault::Killed).await);
    claims.push(show_recovery(screen, &mut fixture, &traffic, Fault::Killed).await);
    claims.push(show_failure(screen, &mut fixture, &traffic, Fault::BlackHole).await);
    claims.push(show_recovery(screen, &mut fixture, &traffic, Fault::BlackHole).await);
    let writes = fixture.writes().await - before;
    claims.push(Claim {
        holds: writes == 4.0,
        words: format!(
            "since the start the daemon wrote {writes} times: once for each of the four changes"
        ),
    });
    ticker.abort();
    screen.live(String::new());
    screen.note("connections to mysql", &Tally::of(&fixture).totals(&traffic));
    drop(traffic);
    if claims.iter().any(|claim| !claim.holds) {
        screen.heading("Log of the daemon");
        fixture.daemon.lines().iter().for_each(|line| screen.say(line));
    }
    claims.extend(demo::names::play(screen, &fixture.plane).await);

    screen.heading("Summary");
    for claim in &claims {
        screen.mark(if claim.holds { Mark::Good } else { Mark::Bad }, &claim.words);
    }
    claims.iter().all(|claim| claim.holds)
}

/// A line of the summary.
struct Claim {
    holds: bool,
    words: String,
}

/// A fault of a database.
#[derive(Clone, Copy)]
enum Fault {
    Killed,
    BlackHole,
}

impl Fault {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Fault::Killed => ("killed", "its address refuses connections"),
            Fault::BlackHole => ("black-holed", "packets to and from its address vanish"),
        }
    }
}

async fn show_first_write(screen: &Screen, fixture: &Fixture) {
    screen.heading("Three databases");
    let began = Instant::now();
    fixture.endpoints_are(&[0, 1, 2]).await;
    screen.at(began.elapsed(), "all three are healthy; the daemon has written the Endpoints");
    fixture.answers().await;
    screen.at(began.elapsed(), "kube-proxy has applied them: the Service answers");
}

async fn show_healthy_traffic(screen: &Screen, fixture: &Fixture, traffic: &Traffic) -> Claim {
    screen.heading("A client connects to the Service fifty times a second");
    let began = Instant::now();
    for database in &fixture.databases {
        reached(traffic, began, database.ip).await;
    }
    screen.at(began.elapsed(), "kube-proxy sends connections to each database");
    // Give the viewer time to look at it.
    let since = Instant::now();
    eventually(TIMEOUT, "two seconds of connections", async || {
        since.elapsed() > Duration::from_secs(2)
    })
    .await;
    let lost = last_lost(traffic, began).is_some();
    Claim {
        holds: !lost,
        words: "three healthy databases: every connection reaches one of them".into(),
    }
}

async fn show_failure(
    screen: &Screen,
    fixture: &mut Fixture,
    traffic: &Traffic,
    fault: Fault,
) -> Claim {
    let name = fixture.name(VICTIM);
    let (what, how) = fault.words();
    screen.heading(&format!("{name} is {what}"));
    let began = Instant::now();
    match fault {
        Fault::Killed => fixture.databases[VICTIM].stop().await,
        Fault::BlackHole => fixture.databases[VICTIM].black_hole().await,
    }
    screen.at(began.elapsed(), &format!("{what}: {how}"));
    let reason = fixture.fails(VICTIM).await;
    screen.at(began.elapsed(), &format!("first failing verdict: {reason}"));
    fixture.endpoints_are(&[0, 2]).await;
    let written = began.elapsed();

    eventually(TIMEOUT, &format!("no connection is sent to {name} any more"), async || {
        Instant::now() > last_lost(traffic, began).unwrap_or(began).max(began + written) + QUIET
    })
    .await;
    let last = last_lost(traffic, began).unwrap_or(began);
    screen.in_order([
        (written, "Endpoints written: two addresses"),
        (last - began, "last connection to this address"),
    ]);
    let after = traffic.tally_since(last + Duration::from_millis(1));
    let others = [0, 2].map(|index| ConnectOutcome::Reached(fixture.databases[index].ip));
    let elsewhere =
        after.keys().all(|outcome| others.contains(outcome)) && after.len() == others.len();
    Claim {
        holds: elsewhere,
        words: format!(
            "{name} {what}: last connection at {:.1} s; the next {} reached others",
            (last - began).as_secs_f64(),
            after.values().sum::<u64>()
        ),
    }
}

async fn show_recovery(
    screen: &Screen,
    fixture: &mut Fixture,
    traffic: &Traffic,
    fault: Fault,
) -> Claim {
    let name = fixture.name(VICTIM);
    screen.heading(&format!("{name} is brought back"));
    let began = Instant::now();
    match fault {
        Fault::Killed => fixture.databases[VICTIM].restart().await,
        Fault::BlackHole => fixture.databases[VICTIM].restore().await,
    }
    screen.at(began.elapsed(), "it answers again");
    fixture.passes(VICTIM).await;
    screen.at(began.elapsed(), "first passing verdict");
    fixture.endpoints_are(&[0, 1, 2]).await;
    let written = began.elapsed();
    let first = reached(traffic, began, fixture.databases[VICTIM].ip).await - began;
    screen.in_order([
        (written, "Endpoints written: three addresses"),
        (first, "first connection to this address"),
    ]);
    Claim {
        holds: last_lost(traffic, began).is_none(),
        words: format!(
            "{name} brought back: first connection at {:.1} s; none was lost",
            first.as_secs_f64()
        ),
    }
}

/// Waits until a connection that started after an instant reaches a database. Returns when it
/// started.
async fn reached(traffic: &Traffic, since: Instant, ip: std::net::IpAddr) -> Instant {
    eventually(TIMEOUT, &format!("a connection reaches {ip}"), async || {
        let connections = traffic.connections().into_iter();
        let there =
            connections.filter(|connection| connection.outcome == ConnectOutcome::Reached(ip));
        there.map(|connection| connection.started).find(|started| *started >= since)
    })
    .await
}

/// Counts connections by the databases' names.
struct Tally {
    names: Vec<(String, ConnectOutcome)>,
}

impl Tally {
    fn of(fixture: &Fixture) -> Tally {
        Tally::named("mysql", &fixture.databases)
    }

    fn named(service: &str, databases: &[Database]) -> Tally {
        let name = |(index, database): (usize, &Database)| {
            (format!("{service}-{}", index + 1), ConnectOutcome::Reached(database.ip))
        };
        Tally { names: databases.iter().enumerate().map(name).collect() }
    }

    /// Formats the connections of the last second.
    ///
    /// They are selected by their end: one without an answer ends a second late, so none of those
    /// that started in the last second could show as lost.
    fn rates(&self, traffic: &Traffic) -> String {
        let now = Instant::now();
        let tally =
            traffic.tally_ended_since(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
        let mut line = "  live ".to_owned();
        for (name, outcome) in &self.names {
            let rate = tally.get(outcome).copied().unwrap_or(0);
            let bar = "█".repeat(usize::try_from(rate.div_ceil(7)).unwrap_or(0).min(5));
            line += &format!(" {name} {bar:<5}{rate:>3}/s");
        }
        line + &format!("  lost {}/s", self.lost(&tally))
    }

    /// Formats the totals of all connections so far.
    fn totals(&self, traffic: &Traffic) -> String {
        let tally = traffic.tally_all();
        let mut words: Vec<String> = Vec::new();
        for (name, outcome) in &self.names {
            words.push(format!("{name} {}", tally.get(outcome).copied().unwrap_or(0)));
        }
        words.push(format!("lost before it was out {}", self.lost(&tally)));
        words.join(", ")
    }

    fn lost(&self, tally: &std::collections::BTreeMap<ConnectOutcome, u64>) -> u64 {
        let lost =
            tally.iter().filter(|(outcome, _)| !matches!(outcome, ConnectOutcome::Reached(_)));
        lost.map(|(_, count)| count).sum()
    }
}

/// Updates the live line. Without a terminal, it prints a line now and then.
async fn tick(screen: Arc<Screen>, traffic: Arc<Traffic>, tally: Tally) {
    let pause = if screen.is_live() { Duration::from_millis(100) } else { Duration::from_secs(3) };
    loop {
        tokio::time::sleep(pause).await;
        let line = tally.rates(&traffic);
        if screen.is_live() { screen.live(line) } else { screen.say(&line) }
    }
}
