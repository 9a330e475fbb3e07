//! The traces that checks leave in MySQL: none. And what keeps a server from blocking this host.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use external_endpoints::config::{CheckKind, MysqlCheck, Role, TcpCheck};
use external_endpoints::health::Verdict;
use external_endpoints::probe::Prober;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::certificates::Authority;
use crate::fixtures::*;
use crate::mysql::{ABORTED, REFUSED, check, prober_of};
use crate::mysql_servers::{Product, mariadb, sql, start, start_with_tls};
use crate::servers::{Database, time_waits};

#[tokio::test]
async fn a_thousand_probes_leave_no_trace() {
    for product in Product::all() {
        let authority = Authority::new();
        let server = start_for(&product, &authority, "--max-connections=100").await;
        let port = server.port;
        let free = MysqlCheck { user: literal("free"), password: None, ..check(port) };
        let mut checks = vec![free, MysqlCheck { fetch_public_key: true, ..check(port) }];
        checks.push(MysqlCheck { role: Role::Primary, ..check(port) });
        // The versions of MySQL that can be had speak no TLS of today.
        if product.is_mariadb() {
            checks.push(MysqlCheck { tls: Some(authority.trusted()), ..check(port) });
        }
        eventually("the start is over", || connections(&server) == 1).await;
        let (log, aborted) = (server.log(), sql(&server, ABORTED));
        for check in checks {
            let probers: Vec<Prober> = (0..16).map(|_| prober_of(&check)).collect();
            for _ in 0..63 {
                let verdicts = join_all(probers.iter().map(Prober::probe)).await;
                let all = verdicts.iter().all(|verdict| *verdict == pass());
                assert!(all, "{}: {check:?}: {verdicts:?}", product.name);
            }
            assert_eq!(server.log(), log, "{}: {check:?}", product.name);
            assert_eq!(sql(&server, ABORTED), aborted, "{}: {check:?}", product.name);
        }
        assert_eq!(time_waits(port), 0, "{}", product.name);
        eventually("no connection is left", || connections(&server) == 1).await;
    }
}

#[tokio::test]
async fn a_wrong_setting_of_one_check_fails_no_other() {
    let server = start(&mariadb(), "").await;
    let good = prober_of(&check(server.port));
    assert_eq!(good.probe().await, pass());
    // The server has no certificate.
    let authority = Authority::new();
    let tls = Some(authority.trusted());
    let bad = prober_of(&MysqlCheck { tls, ..check(server.port) });
    let refused = fail("tls: the server does not speak TLS");
    for _ in 0..10 {
        assert_eq!(bad.probe().await, refused);
    }
    // It has never been tried, and says nothing for the other.
    let new = prober_of(&check(server.port));
    let verdicts = [bad.probe().await, new.probe().await].map(|verdict| format!("{verdict:?}"));
    assert!(verdicts[0].starts_with("Fail(\"tls: the server does not speak TLS (asked again in"));
    assert!(verdicts[1].starts_with("Inconclusive(\"greeting: asked again in"), "{verdicts:?}");
    assert_eq!(good.probe().await, pass());
    assert_eq!(new.probe().await, pass());
    assert_eq!(bad.probe().await, refused);
}

/// Returns the number of connections of a server, this one included.
fn connections(server: &Database) -> usize {
    let threads = sql(server, "SHOW GLOBAL STATUS LIKE 'Threads_connected'");
    threads.split_whitespace().last().unwrap().parse().unwrap()
}

/// Runs the test of this file on a host with a name.
#[test]
fn no_hang_and_no_refusal_blocks_this_host() {
    // Before the network is taken away.
    Product::all();
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let spaces = ["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork"];
    let output = Command::new("unshare")
        .args(spaces)
        .args(["--kill-child", "--mount-proc"])
        .args(["sh", "-c", include_str!("mysql_block.sh"), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["mysql_traces::on_a_host_with_a_name", "--exact", "--ignored", "--nocapture"])
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

const NAMED: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));

/// The time-out and the interval of tries.
const TICK: Duration = Duration::from_millis(200);

/// The time for which each thing goes wrong: twice the limit of 20 tries.
const LONG: Duration = Duration::from_secs(8);

/// Starts a server, with a certificate if it speaks TLS of today.
async fn start_for(product: &Product, authority: &Authority, settings: &str) -> Database {
    match product.is_mariadb() {
        true => start_with_tls(product, authority, settings).await,
        false => start(product, settings).await,
    }
}

fn at(check: &MysqlCheck, timeout: Duration) -> Prober {
    prober_for(CheckKind::Mysql(check.clone()), timeout, target(NAMED))
}

/// Waits until the server lets the check in.
async fn expect_welcome(server: &Database, what: &str) {
    let prober = at(&passing(server.port), PATIENT);
    let start = Instant::now();
    loop {
        let verdict = prober.probe().await;
        if verdict == pass() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "after {what}: {verdict:?}");
        tokio::time::sleep(TICK).await;
    }
}

/// Returns a check that needs no cache of the server.
fn passing(port: u16) -> MysqlCheck {
    MysqlCheck { fetch_public_key: true, ..check(port) }
}

/// Probes again and again, and returns the last verdict.
async fn probe_for_long(check: &MysqlCheck) -> Verdict {
    let (prober, start) = (at(check, TICK), Instant::now());
    let mut verdict = pass();
    while start.elapsed() < LONG {
        let next = Instant::now() + TICK;
        verdict = prober.probe().await;
        tokio::time::sleep_until(next.into()).await;
    }
    verdict
}

fn errors_of_host(server: &Database) -> u64 {
    let query = "SELECT IFNULL(SUM(SUM_CONNECT_ERRORS), 0) FROM performance_schema.host_cache";
    sql(server, query).parse().unwrap()
}

#[tokio::test]
#[ignore = "run by no_hang_and_no_refusal_blocks_this_host"]
async fn on_a_host_with_a_name() {
    for product in Product::all() {
        let settings = "--max-connect-errors=20 --performance-schema=ON --bind-address=0.0.0.0";
        let server = start_for(&product, &Authority::new(), settings).await;
        expect_welcome(&server, "the start").await;
        blocks_those_that_only_connect(&server).await;

        server.signal(rustix::process::Signal::STOP);
        let verdict = probe_for_long(&passing(server.port)).await;
        server.signal(rustix::process::Signal::CONT);
        let reason = format!("{verdict:?}");
        assert!(reason.contains(": no answer in 200ms\")"), "{}: {reason}", product.name);
        expect_welcome(&server, "the stop").await;

        let proxy = proxy_that_hangs(server.port).await;
        let verdict = probe_for_long(&passing(proxy)).await;
        let reason = format!("{verdict:?}");
        let note = "as MySQL blocks hosts that do not finish)";
        assert!(reason.contains("auth: ") && reason.contains(note), "{}: {reason}", product.name);
        let errors = errors_of_host(&server);
        // A proxy that is late counts too, after its client has given up before the greeting.
        assert!((1..20).contains(&errors), "{}: {errors} errors", product.name);
        expect_welcome(&server, "the hanging proxy").await;

        if sql(&server, "SHOW VARIABLES LIKE 'have_ssl'").contains("YES") {
            let stranger = Authority::new();
            let check = MysqlCheck { tls: Some(stranger.trusted()), ..check(server.port) };
            let reason = format!("{:?}", probe_for_long(&check).await);
            let held = reason.contains("\"tls: ") && reason.contains(note);
            assert!(held, "{}: {reason}", product.name);
            let errors = errors_of_host(&server);
            assert!((1..20).contains(&errors), "{}: {errors} errors", product.name);
            // All checks of the address share the brake, but not the verdict on the certificate.
            let verdict = format!("{:?}", at(&passing(server.port), PATIENT).probe().await);
            assert!(verdict.starts_with("Inconclusive(\"greeting: asked again in "), "{verdict}");
        }
        let other = proxy_to(server.port).await;
        many_checks_at_once_do_not_block(&server, other).await;
        let wrong = MysqlCheck { password: Some(literal("wrong")), ..passing(other) };
        let nobody = |user| MysqlCheck { user: literal(user), ..passing(other) };
        // Some versions choose the decoy's way to log in by the name.
        for refused in [wrong, nobody("nobody"), nobody("stranger"), nobody("monitor")] {
            for _ in 0..40 {
                let verdict = at(&refused, PATIENT).probe().await;
                assert_eq!(verdict, inconclusive(REFUSED), "{}: {refused:?}", product.name);
            }
            let verdict = at(&passing(other), PATIENT).probe().await;
            assert_eq!(verdict, pass(), "{}: {refused:?}", product.name);
        }
    }
}

/// Proves that the server counts, and checks the words of a block.
async fn blocks_those_that_only_connect(server: &Database) {
    let quiet = prober_for(CheckKind::Tcp(tcp(server.port)), PATIENT, target(NAMED));
    for _ in 0..40 {
        assert_eq!(quiet.probe().await, pass());
    }
    expect_welcome(server, "connects that the server never learns of").await;
    let loud = TcpCheck { expect: Some("\n".into()), ..tcp(server.port) };
    let loud = prober_for(CheckKind::Tcp(loud), PATIENT, target(NAMED));
    let prober = at(&passing(server.port), PATIENT);
    let blocked = "greeting: this host is blocked (1129): FLUSH HOSTS on the server unblocks it";
    let mut verdict = pass();
    for _ in 0..200 {
        let _ = loud.probe().await;
        if errors_of_host(server) >= 20 {
            verdict = prober.probe().await;
            break;
        }
    }
    assert_eq!(verdict, fail(blocked));
    sql(server, "FLUSH HOSTS");
    expect_welcome(server, "the flush").await;
}

/// Proves that checks of one address do not block this host if they are under way all at once when
/// the server begins to hang. `other` is the port of another address of the server.
async fn many_checks_at_once_do_not_block(server: &Database, other: u16) {
    sql(server, "SET GLOBAL max_connect_errors=100; FLUSH HOSTS");
    let check = passing(proxy_that_hangs(server.port).await);
    let probers: Vec<Prober> = (0..200).map(|_| at(&check, 5 * TICK)).collect();
    let round = async || join_all(probers.iter().map(Prober::probe)).await;
    let count = |verdicts: &[Verdict], end: &str| {
        verdicts.iter().filter(|verdict| format!("{verdict:?}").contains(end)).count()
    };
    let first = round().await;
    let waiting = count(&first, "Inconclusive(\"greeting: asked by other checks now, as");
    let asked = count(&first, "Fail(\"auth: no answer in 1s\")");
    assert_eq!((asked, waiting), (40, 160), "{first:?}");
    let second = round().await;
    let repeated = count(&second, "Fail(\"auth: no answer in 1s (asked again in ");
    assert_eq!(repeated, 200, "{second:?}");
    // The server counts an ending when it notices it.
    let unfinished = "SELECT COUNT(*) FROM information_schema.processlist \
                      WHERE user = 'unauthenticated user'";
    eventually("all endings are counted", || sql(server, unfinished) == "0").await;
    let errors = errors_of_host(server);
    assert!((10..=40).contains(&errors), "{errors} errors");
    assert_eq!(at(&passing(other), PATIENT).probe().await, pass());
    sql(server, "SET GLOBAL max_connect_errors=20");
}

/// Starts a proxy that passes the greeting and then nothing.
async fn proxy_that_hangs(port: u16) -> u16 {
    proxy(port, |mut client, mut server| async move {
        let mut greeting = vec![0; 4096];
        let Ok(read) = server.read(&mut greeting).await else { return };
        let _ = client.write_all(&greeting[..read]).await;
        // The end of the client, which the server then sees too.
        let _ = client.read_to_end(&mut Vec::new()).await;
    })
    .await
}

/// Starts a proxy that is another address to the checks, and the same client to the server.
async fn proxy_to(port: u16) -> u16 {
    proxy(port, |mut client, mut server| async move {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    })
    .await
}

async fn proxy<F: Future<Output = ()> + Send + 'static>(
    port: u16,
    serve: impl Fn(TcpStream, TcpStream) -> F + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind((NAMED, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let serve = serve.clone();
            tokio::spawn(async move {
                if let Ok(server) = TcpStream::connect((NAMED, port)).await {
                    serve(client, server).await;
                }
            });
        }
    });
    address.port()
}
