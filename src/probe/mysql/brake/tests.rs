//! The times of the brake, and the attempts that it counts.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn address(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 3306).into()
}

fn late() -> Verdict {
    Verdict::Fail("auth: no answer in 2s".into())
}

/// Returns brakes after so many endings, and the time of the last one.
fn after(endings: u32) -> (Arc<Brakes>, Instant) {
    let brakes = Arc::new(Brakes::default());
    let last = clock::now();
    (0..endings).for_each(|_| count(&brakes, 1, late(), last));
    (brakes, last)
}

/// Counts an ending of an attempt.
fn count(brakes: &Arc<Brakes>, last: u8, verdict: Verdict, now: Instant) {
    brakes.lock().entry(address(last)).or_insert_with(|| Brake::new(now)).attempts += 1;
    brakes.end(address(last), Outcome::Counted(verdict, now));
}

fn is_held(brakes: &Brakes, last: u8, now: Instant) -> bool {
    brakes
        .lock()
        .get(&address(last))
        .is_some_and(|brake| brake.wait(LastAttempt::Unknown, now).is_some())
}

/// Returns the verdict of a check that is not admitted.
fn held(brakes: &Arc<Brakes>, now: Instant) -> Verdict {
    brakes.admit_late(address(1), LastAttempt::Failed, now).map(drop).expect_err("the brake holds")
}

#[test]
fn the_pauses_are_those_of_the_table() {
    for (endings, seconds) in
        [(0, 0), (9, 0), (10, 60), (11, 120), (12, 240), (13, 480), (14, 600), (99, 600)]
    {
        let (brakes, last) = after(endings);
        let held = |after: u64| is_held(&brakes, 1, last + Duration::from_secs(after));
        assert_eq!(held(0), seconds > 0, "{endings}");
        assert!(seconds == 0 || held(seconds - 1), "{endings}");
        assert!(!held(seconds) && !is_held(&brakes, 2, last), "{endings}");
    }
}

#[test]
fn the_last_verdict_is_repeated_with_the_time() {
    let (brakes, last) = after(10);
    let note = "(asked again in 20s, as MySQL blocks hosts that do not finish)";
    let reason = format!("auth: no answer in 2s {note}");
    assert_eq!(held(&brakes, last + 40 * SECOND), Verdict::Fail(reason.clone()));
    assert_eq!(held(&brakes, last + 40 * SECOND + SECOND / 2), Verdict::Fail(reason));
    assert!(brakes.admit_late(address(1), LastAttempt::Failed, last + 60 * SECOND).is_ok());
    count(&brakes, 1, Verdict::Inconclusive("tls: a file is missing".into()), last);
    // Each new reason of an inconclusive verdict is logged, so it does not count down.
    let reason = format!("tls: a file is missing {}", note.replace("20s", "at most 2m"));
    for after in [1, 2, 119] {
        let verdict = held(&brakes, last + after * SECOND);
        assert_eq!(verdict, Verdict::Inconclusive(reason.clone()));
    }
}

#[test]
fn a_login_or_a_restart_ends_the_brake() {
    let is_held = |end: &dyn Fn(&Arc<Brakes>)| {
        let (brakes, last) = after(12);
        end(&brakes);
        self::is_held(&brakes, 1, last)
    };
    let fail = |brakes: &Brakes, failure| brakes.on_connect_failure(address(1), failure);
    assert!(is_held(&|_| {}));
    assert!(!is_held(&|brakes| Attempt::new(brakes.clone(), address(1)).succeed()));
    assert!(!is_held(&|brakes| fail(brakes, ConnectFailure::Refused)));
    let lost = |brakes: &Brakes| fail(brakes, ConnectFailure::Other);
    assert!(is_held(&|brakes| (0..2).for_each(|_| lost(brakes))));
    assert!(!is_held(&|brakes| (0..3).for_each(|_| lost(brakes))));
    // A fault of this host says nothing of the server.
    let local = |brakes: &Brakes| fail(brakes, ConnectFailure::Local);
    assert!(is_held(&|brakes| (0..3).for_each(|_| local(brakes))));
    assert!(is_held(&|brakes| {
        (0..2).for_each(|_| lost(brakes));
        held(brakes, clock::now());
        (0..2).for_each(|_| lost(brakes));
    }));
}

#[test]
fn after_a_pause_one_check_asks_at_a_time() {
    let (brakes, last) = after(10);
    let over = last + 60 * SECOND;
    let admit = |after| {
        let is_admitted = brakes.admit(address(1), LastAttempt::Unknown, over + after);
        is_admitted.then(|| Attempt::new(brakes.clone(), address(1)))
    };
    assert!(!brakes.admit(address(1), LastAttempt::Unknown, over - SECOND));
    let first = admit(SECOND);
    assert!(first.is_some() && admit(SECOND).is_none());
    let Verdict::Fail(reason) = held(&brakes, over) else { panic!("no failure") };
    assert!(reason.contains(" (asked by another check now, as MySQL"), "{reason}");
    // A failed connect ends the turn, and so do a refusal and an ending.
    drop(first);
    let mut second = admit(SECOND).expect("a turn").connected();
    second.close();
    let mut third = admit(SECOND).expect("a turn").connected();
    third.open(Phase::Auth);
    assert!(admit(SECOND).is_none());
    drop(third);
    let ended = brakes.lock()[&address(1)].ended_at;
    assert!(!brakes.admit(address(1), LastAttempt::Unknown, ended + 119 * SECOND));
    assert!(brakes.admit(address(1), LastAttempt::Unknown, ended + 120 * SECOND));
}

#[test]
fn few_checks_are_under_way_at_a_time() {
    let brakes = Arc::new(Brakes::default());
    let now = clock::now();
    let admit = || {
        let is_admitted = brakes.admit(address(1), LastAttempt::Unknown, now);
        is_admitted.then(|| Attempt::new(brakes.clone(), address(1)).connected())
    };
    let begin = || (0..100).filter_map(|_| admit()).collect::<Vec<_>>();
    let first = begin();
    assert_eq!(first.len(), 40);
    assert!(brakes.admit(address(2), LastAttempt::Unknown, now));
    let note = "asked by 40 other checks now, as MySQL blocks hosts that do not finish";
    let unknown = Verdict::Inconclusive(format!("greeting: {}", note.replace("40 ", "")));
    assert_eq!(held(&brakes, now), unknown);
    // The newest failure is that of all, as long as the server does not answer.
    let mut first = first.into_iter();
    first.next().unwrap().on_failure(&Phase::Greeting.fail("no answer in 2s"));
    let again = admit();
    let failed = Verdict::Fail(format!("greeting: no answer in 2s ({note})"));
    assert_eq!(held(&brakes, now), failed);
    first.next().unwrap().close();
    let another = admit();
    assert_eq!(held(&brakes, now), unknown);
    drop((first, again, another));
    assert!(!brakes.lock().contains_key(&address(1)), "{}", brakes.lock().len());

    // Whatever hangs, no more than 40 count, and a login sets all back.
    let mut hung = begin();
    hung.iter_mut().for_each(|attempt| attempt.open(Phase::Auth));
    drop(hung.split_off(35));
    assert_eq!((hung.len(), begin().len()), (35, 0));
    hung[0].succeed();
    assert_eq!(begin().len(), 6);
    drop(hung);
    assert_eq!(brakes.lock()[&address(1)].endings, 34);
}

#[test]
fn a_check_that_logged_in_asks_in_spite_of_another() {
    let (brakes, last) = after(10);
    let admit = |brakes: &Arc<Brakes>, before| brakes.admit(address(1), before, last + SECOND);
    assert!(!admit(&brakes, LastAttempt::Unknown) && !admit(&brakes, LastAttempt::Failed));
    assert!(admit(&brakes, LastAttempt::LoggedIn));
    let mut hung = Attempt::new(brakes.clone(), address(1)).connected();
    hung.open(Phase::Auth);
    drop(hung);
    assert_eq!(brakes.lock()[&address(1)].endings, 11);
    assert!(admit(&brakes, LastAttempt::LoggedIn));
    Attempt::new(brakes.clone(), address(1)).succeed();
    assert!(admit(&brakes, LastAttempt::Unknown), "another login sets the count back");
    assert!(!admit(&after(40).0, LastAttempt::LoggedIn));
}

#[test]
fn checks_that_have_logged_in_do_not_add_up() {
    let (brakes, last) = after(10);
    let admit = || brakes.admit(address(1), LastAttempt::LoggedIn, last);
    assert_eq!((0..300).filter(|_| admit()).count(), 30);
    (0..30).for_each(|_| brakes.end(address(1), Outcome::Counted(late(), last)));
    assert_eq!(brakes.lock()[&address(1)].endings, 40);
    assert!(!admit());
}

#[test]
fn no_check_repeats_the_failed_handshake_of_another() {
    let (brakes, last) = after(0);
    let refused = Verdict::Fail("tls: the server does not speak TLS".into());
    (0..10).for_each(|_| count(&brakes, 1, refused.clone(), last));
    let held = |before| {
        brakes.admit_late(address(1), before, last).map(drop).expect_err("the brake holds")
    };
    let note = "asked again in 1m, as MySQL blocks hosts that do not finish";
    let own = Verdict::Fail(format!("tls: the server does not speak TLS ({note})"));
    assert_eq!(held(LastAttempt::Failed), own);
    let note = note.replace("in 1m", "in at most 1m");
    assert_eq!(held(LastAttempt::Unknown), Verdict::Inconclusive(format!("greeting: {note}")));
    // A server that hangs does so for all.
    count(&brakes, 1, late(), last);
    assert!(matches!(held(LastAttempt::Unknown), Verdict::Fail(_)));
}

#[test]
fn only_an_open_attempt_counts() {
    let brakes = Arc::new(Brakes::default());
    let endings = || brakes.lock().get(&address(1)).map_or(0, |brake| brake.endings);
    let attempt = || {
        assert!(brakes.admit(address(1), LastAttempt::Unknown, clock::now()));
        Attempt::new(brakes.clone(), address(1)).connected()
    };
    drop(attempt());
    assert_eq!(endings(), 0);
    let mut dropped = attempt();
    dropped.open(Phase::Auth);
    drop(dropped);
    assert_eq!(endings(), 1);
    let mut refused = attempt();
    refused.open(Phase::Auth);
    refused.close();
    refused.on_failure(&late());
    drop(refused);
    assert_eq!(endings(), 1, "an error of the server neither counts nor sets back");
    let mut reset = attempt();
    reset.open(Phase::Auth);
    reset.on_failure(&Verdict::Fail("auth: connection reset".into()));
    drop(reset);
    assert_eq!(endings(), 2);
    let verdict = brakes.lock()[&address(1)].verdict.clone();
    assert_eq!(verdict, Some(Verdict::Fail("auth: connection reset".into())));
    let mut passed = attempt();
    passed.open(Phase::Auth);
    passed.succeed();
    drop(passed);
    assert_eq!(endings(), 0);
}

#[test]
fn servers_that_are_gone_are_forgotten() {
    let (brakes, last) = after(12);
    count(&brakes, 2, late(), last + MAX_AGE);
    assert_eq!(brakes.lock().len(), 1);
    // The search takes long, and is not made at each ending.
    let old = last + 2 * MAX_AGE;
    count(&brakes, 3, late(), old - SECOND);
    count(&brakes, 4, late(), old);
    assert_eq!(brakes.lock().len(), 3);
    count(&brakes, 4, late(), old - SECOND + SWEEP_INTERVAL);
    assert_eq!(brakes.lock().len(), 2);
}

#[test]
fn the_brakes_shrink_when_few_checks_are_under_way() {
    let brakes = Arc::new(Brakes::default());
    let now = clock::now();
    let servers = (0..5000).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
    let attempts: Vec<_> = servers
        .map(|server| {
            assert!(brakes.admit(server, LastAttempt::Unknown, now));
            Attempt::new(brakes.clone(), server)
        })
        .collect();
    assert!(brakes.lock().capacity() >= 5000);
    drop(attempts);
    assert!(brakes.lock().capacity() <= 2 * MIN_SHRUNK, "{}", brakes.lock().capacity());
}
