//! The second act: a primary behind a name moves by DNS, while a client keeps connecting.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::demo::fixture::{TIMEOUT, last_lost};
use crate::demo::screen::Screen;
use crate::support::name_server::{NameServer, Reply};
use crate::support::traffic::connect;
use crate::support::{
    ConnectOutcome, ControlPlane, Daemon, Database, Namespace, Traffic, addresses, eventually,
    runtime,
};
use crate::{Claim, QUIET, Tally, reached, tick};

const SERVICE: &str = "orders";
const NAME: &str = "orders.corp.example";
const PORT: u16 = 5432;
const TTL: Duration = Duration::from_secs(1);
/// The interval and the timeout of the check.
const CHECK: Duration = Duration::from_millis(1500);
/// The time for the write and for kube-proxy, on a busy machine.
const WRITE: Duration = Duration::from_secs(1);
/// The time for which DNS is silent.
const SILENCE: Duration = Duration::from_secs(6);

/// The parts of the act.
struct Stage {
    namespace: Namespace,
    databases: Vec<Database>,
    dns: NameServer,
    daemon: Daemon,
}

/// Plays the second act, and returns the claims for the summary.
pub(crate) async fn play(screen: &Arc<Screen>, plane: &ControlPlane) -> Vec<Claim> {
    screen.heading(&format!("A primary behind a name: {NAME}, with a TTL of 1 s"));
    let began = Instant::now();
    let mut stage = Stage::set(screen, plane).await;
    stage.is_published(0).await;
    screen.at(began.elapsed(), "DNS gives orders-1; the daemon has written the Endpoints");
    let cluster_ip = stage.namespace.cluster_ip(SERVICE).await;
    eventually(TIMEOUT, "the Service answers", async || {
        matches!(connect(cluster_ip, PORT).await, ConnectOutcome::Reached(_))
    })
    .await;
    screen.at(began.elapsed(), "kube-proxy has applied them; a client connects all the time");
    let traffic = Arc::new(Traffic::start(cluster_ip, PORT, Duration::from_millis(20)));
    let ticker = runtime().spawn(tick(screen.clone(), traffic.clone(), stage.tally()));
    let claims = vec![
        stage.show_move(screen, &traffic).await,
        stage.show_failover(screen, &traffic).await,
        stage.show_silence(screen, &traffic).await,
    ];
    ticker.abort();
    screen.live(String::new());
    screen.note("connections to orders", &stage.tally().totals(&traffic));
    if claims.iter().any(|claim| !claim.holds) {
        screen.heading("Log of the daemon that follows the name");
        stage.daemon.lines().iter().for_each(|line| screen.say(line));
    }
    claims
}

impl Stage {
    /// Starts the databases, the name server and the daemon.
    async fn set(screen: &Screen, plane: &ControlPlane) -> Stage {
        let namespace = plane.namespace("demo").await;
        namespace.create_service(SERVICE, &[("", PORT)]).await;
        let mut databases = Vec::new();
        for ip in addresses::allocate(2) {
            databases.push(Database::start(ip, PORT).await);
        }
        let server = addresses::allocate_one();
        let dns = NameServer::start_on((server, 53).into()).await;
        dns.set(NAME, at(databases[0].ip));
        let config = config(&namespace.name);
        for line in config.lines() {
            screen.say(&format!("    {line}"));
        }
        let server = server.to_string();
        let arguments = ["--dns-server", server.as_str()];
        let daemon = Daemon::start(&config, &plane.kubeconfig(), &arguments).await;
        Stage { namespace, databases, dns, daemon }
    }

    fn tally(&self) -> Tally {
        Tally::named(SERVICE, &self.databases)
    }

    fn ip(&self, index: usize) -> IpAddr {
        self.databases[index].ip
    }

    /// Waits until the Endpoints have exactly this database.
    async fn is_published(&self, index: usize) {
        let wanted = [self.ip(index).to_string()];
        eventually(TIMEOUT, &format!("the Endpoints are {wanted:?}"), async || {
            let ips = self.namespace.endpoint_ips(SERVICE).await;
            if ips == wanted { Ok(()) } else { Err(ips.join(", ")) }
        })
        .await;
    }

    /// Moves the name to the second database, while the first one still answers.
    async fn show_move(&self, screen: &Screen, traffic: &Traffic) -> Claim {
        screen.heading("DNS moves the name to orders-2, and orders-1 still answers");
        let began = Instant::now();
        self.dns.set(NAME, at(self.ip(1)));
        screen.at(began.elapsed(), "DNS gives orders-2 from now on");
        self.is_published(1).await;
        let written = began.elapsed();
        let first = reached(traffic, began, self.ip(1)).await - began;
        screen.in_order([
            (written, "Endpoints written: orders-2 in place of orders-1, in one write"),
            (first, "first connection to orders-2"),
        ]);
        quiet(traffic, began + written).await;
        let lost = last_lost(traffic, began).is_some();
        Claim {
            holds: !lost && first < TTL + CHECK + WRITE,
            words: format!(
                "a name that moves: first connection to the new primary at {:.1} s; none was lost",
                first.as_secs_f64()
            ),
        }
    }

    /// Kills the primary, and lets the name move back at the same time.
    async fn show_failover(&mut self, screen: &Screen, traffic: &Traffic) -> Claim {
        screen.heading("orders-2 dies, and DNS moves the name back to orders-1");
        let began = Instant::now();
        self.databases[1].stop().await;
        self.dns.set(NAME, at(self.ip(0)));
        screen.at(began.elapsed(), "orders-2 refuses connections; DNS gives orders-1");
        self.is_published(0).await;
        let written = began.elapsed();
        let first = reached(traffic, began, self.ip(0)).await - began;
        quiet(traffic, began + written).await;
        let last = last_lost(traffic, began).unwrap_or(began) - began;
        screen.in_order([
            (written, "Endpoints written: orders-1"),
            (first, "first connection to orders-1"),
            (last, "last connection that failed"),
        ]);
        let limit = TTL + CHECK + WRITE;
        Claim {
            holds: last < limit,
            words: format!(
                "a primary that dies and moves by DNS: connections failed for {:.1} s; the TTL, a \
                 check and the write may take {:.1} s",
                last.as_secs_f64(),
                limit.as_secs_f64()
            ),
        }
    }

    /// Silences the name server for longer than the TTL.
    async fn show_silence(&self, screen: &Screen, traffic: &Traffic) -> Claim {
        screen.heading("The DNS server falls silent");
        let began = Instant::now();
        self.dns.fail_all(Reply::Silence);
        eventually(TIMEOUT, "the name no longer resolves", async || {
            let name = [("name", NAME)];
            self.daemon.metric("external_endpoints_name_resolved", &name).await == Some(0.0)
        })
        .await;
        screen.at(began.elapsed(), "the daemon has no answer; orders-1 stays, and is checked");
        eventually(TIMEOUT, "several TTLs pass", async || began.elapsed() > SILENCE).await;
        screen.at(began.elapsed(), "nothing has changed");
        let tally = traffic.tally_since(began);
        let primary = ConnectOutcome::Reached(self.ip(0));
        Claim {
            holds: tally.keys().all(|outcome| *outcome == primary) && !tally.is_empty(),
            words: format!(
                "a DNS server that falls silent: all {} connections reached the primary",
                tally.values().sum::<u64>()
            ),
        }
    }
}

/// Waits until no connection has been lost for a while.
async fn quiet(traffic: &Traffic, since: Instant) {
    eventually(TIMEOUT, "no connection is lost any more", async || {
        Instant::now() > last_lost(traffic, since).unwrap_or(since) + QUIET
    })
    .await;
}

fn at(ip: IpAddr) -> Reply {
    Reply::Addresses(vec![ip], u32::try_from(TTL.as_secs()).expect("a short TTL"))
}

fn config(namespace: &str) -> String {
    format!(
        "databases:
- service: {SERVICE}
  namespace: {namespace}
  port: {PORT}
  addresses: [{NAME}]
  check:
    tcp: {{}}
    interval: 1s
    timeout: 500ms
    unhealthyThreshold: 2
"
    )
}
