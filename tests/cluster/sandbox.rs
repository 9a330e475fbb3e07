//! Tests of the sandbox itself: it is a real cluster, and it leaves nothing behind.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Service};
use kube::api::{Api, ListParams, Patch, PatchParams};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::control_plane::UNPRIVILEGED_TOKEN;
use crate::support::name_server::{NameServer, Reply};
use crate::support::traffic::connect;
use crate::support::{
    ApiProxy, ConnectOutcome, ControlPlane, CoreDns, Database, Options, Traffic, addresses,
    blocking, case::cases, consistently, eventually, rbac, sandbox, shared,
};

const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        rights_are_enforced,
        hand_written_endpoints_are_mirrored,
        connections_follow_the_endpoints,
        a_black_hole_is_silent,
        a_stopped_database_refuses,
        coredns_keeps_an_answer_for_5_seconds,
        data_outlives_the_api_server,
        the_api_proxy_injects_faults,
        nothing_is_left_after_ctrl_c,
        nothing_is_left_after_a_kill,
        nothing_is_left_after_a_panic,
    ]
}

async fn rights_are_enforced() {
    let cluster = shared();
    let namespace = cluster.namespace("rights").await;
    namespace.create_service_account("reader").await;
    let token = namespace.token("reader").await;
    for token in [UNPRIVILEGED_TOKEN, &token] {
        let client = cluster.client_with_token(token).await;
        let services: Api<Service> = Api::namespaced(client, &namespace.name);
        let error = services.list(&ListParams::default()).await.expect_err("no right to list");
        assert!(matches!(&error, kube::Error::Api(status) if status.is_forbidden()), "{error}");
    }
    rbac::grant(&namespace, "reader", json!([rbac::rule("services", &["list"])])).await;
    let client = cluster.client_with_token(&token).await;
    let services: Api<Service> = Api::namespaced(client, &namespace.name);
    eventually(TIMEOUT, "the Role allows to list", async || {
        services.list(&ListParams::default()).await
    })
    .await;
}

async fn hand_written_endpoints_are_mirrored() {
    let namespace = shared().namespace("mirrored").await;
    let ips = addresses::allocate(2);
    namespace.create_service("mysql", &[("", 3306)]).await;
    namespace.create_endpoints("mysql", &ips, &[("", 3306)]).await;
    let mut wanted: Vec<String> = ips.iter().map(ToString::to_string).collect();
    assert_eq!(namespace.endpoint_ips("mysql").await, wanted);
    wanted.sort();
    eventually(TIMEOUT, "the slices have the addresses", async || {
        namespace.slice_ips("mysql").await == wanted
    })
    .await;
}

async fn connections_follow_the_endpoints() {
    let namespace = shared().namespace("routed").await;
    let ips = addresses::allocate(2);
    let _first = Database::start(ips[0], 3306).await;
    let second = Database::start(ips[1], 3306).await;
    // The Service's port differs from the databases' port, so kube-proxy has to translate.
    namespace.create_service("mysql", &[("", 13306)]).await;
    namespace.create_endpoints("mysql", &ips, &[("", 3306)]).await;
    let traffic =
        Traffic::start(namespace.cluster_ip("mysql").await, 13306, Duration::from_millis(20));
    for ip in &ips {
        eventually(TIMEOUT, "both databases get connections", async || {
            traffic.last(ConnectOutcome::Reached(*ip))
        })
        .await;
    }

    let only_first =
        json!({"subsets": [{"addresses": [{"ip": ips[0]}], "ports": [{"port": 3306}]}]});
    let endpoints: Api<Endpoints> = namespace.api();
    endpoints
        .patch("mysql", &PatchParams::default(), &Patch::Merge(only_first))
        .await
        .expect("a patch");
    let written = Instant::now();
    eventually(TIMEOUT, "for half a second the second database gets no connection", async || {
        let last = traffic.last(ConnectOutcome::Reached(ips[1])).expect("it had some before");
        last.elapsed() > Duration::from_millis(500)
    })
    .await;
    let left = traffic.last(ConnectOutcome::Reached(ips[1])).expect("it had some before");
    let accepted = second.accept_count();
    let tally = traffic.tally_since(left + Duration::from_millis(1));
    assert!(tally[&ConnectOutcome::Reached(ips[0])] > 0, "{tally:?}");
    assert_eq!(tally.len(), 1, "every connection reaches the first database: {tally:?}");
    consistently(Duration::from_secs(1), "the second database gets no connection", async || {
        second.accept_count() == accepted
    })
    .await;
    assert!(left < written + Duration::from_secs(10), "kube-proxy took {:?}", left - written);
}

async fn a_black_hole_is_silent() {
    for ip in addresses::allocate(1).into_iter().chain(addresses::allocate_v6(1)) {
        let mut database = Database::start(ip, 5432).await;
        assert_eq!(connect(ip, 5432).await, ConnectOutcome::Reached(ip));
        database.black_hole().await;
        let before = database.accept_count();
        assert_eq!(connect(ip, 5432).await, ConnectOutcome::NoAnswer);
        assert_eq!(database.accept_count(), before);
        database.restore().await;
        assert_eq!(connect(ip, 5432).await, ConnectOutcome::Reached(ip));
    }
}

async fn a_stopped_database_refuses() {
    let ip = addresses::allocate_one();
    let mut database = Database::start(ip, 6379).await;
    assert_eq!(connect(ip, 6379).await, ConnectOutcome::Reached(ip));
    database.stop().await;
    assert_eq!(connect(ip, 6379).await, ConnectOutcome::Refused);
    database.restart().await;
    assert_eq!(connect(ip, 6379).await, ConnectOutcome::Reached(ip));
    assert_eq!(database.accept_count(), 2);
}

/// Checks that CoreDNS tells a TTL of 1 s as 5 s, and has the same answer until then.
async fn coredns_keeps_an_answer_for_5_seconds() {
    const NAME: &str = "db.corp.example";
    let dns = NameServer::start_on((addresses::allocate_one(), 53).into()).await;
    let coredns = CoreDns::start(dns.address.ip()).await;
    let [old, new] = addresses::allocate(2)[..] else { panic!("two addresses") };
    dns.set(NAME, Reply::addresses([old], 1));
    let first = Instant::now();
    assert_eq!(coredns.lookup(NAME).await, [(old, 5)]);
    dns.set(NAME, Reply::addresses([new], 3600));
    eventually(TIMEOUT, "the new address", async || match coredns.lookup(NAME).await[..] {
        [(ip, ttl)] if ip == new => {
            assert_eq!(ttl, 30);
            Ok(())
        }
        [(ip, ttl)] if ip == old && ttl <= 5 => Err(format!("{ip} for {ttl} s")),
        ref other => panic!("{other:?}"),
    })
    .await;
    let held = first.elapsed();
    assert!(held > Duration::from_secs(4) && held < Duration::from_secs(8), "held for {held:?}");
}

async fn data_outlives_the_api_server() {
    let plane = ControlPlane::start(Options::default()).await;
    let namespace = plane.namespace("kept").await;
    let written: ConfigMap = namespace.create_object(json!({"metadata": {"name": "kept"}})).await;
    let config_maps: Api<ConfigMap> = namespace.api();
    let get = || tokio::time::timeout(Duration::from_secs(1), config_maps.get("kept"));

    plane.kill_api().await;
    assert!(!matches!(get().await, Ok(Ok(_))), "a killed API server answers");
    plane.start_api().await;
    let read = config_maps.get("kept").await.expect("it was stored");
    assert_eq!(read.metadata.uid, written.metadata.uid);

    plane.pause_api();
    assert!(get().await.is_err(), "a paused API server doesn't answer in a second");
    plane.resume_api();
    eventually(TIMEOUT, "a resumed API server answers", async || config_maps.get("kept").await)
        .await;

    let pids = plane.pids();
    assert_eq!(pids.len(), 3);
    drop(plane);
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left");
    }
}

async fn the_api_proxy_injects_faults() {
    let proxy = ApiProxy::start(shared()).await;
    let namespace = shared().namespace("proxied").await;
    let kubeconfig =
        kube::config::Kubeconfig::read_from(proxy.kubeconfig()).expect("our own kubeconfig");
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .expect("our own kubeconfig");
    let client = kube::Client::try_from(config).expect("a client");
    let services: Api<Service> = Api::namespaced(client, &namespace.name);
    let list = || async {
        let params = ListParams::default();
        let listed = tokio::time::timeout(Duration::from_secs(2), services.list(&params)).await;
        listed.map_err(|_| "silence".to_owned())?.map_err(|error| error.to_string())
    };
    list().await.expect("it passes everything at first");

    proxy.refuse().await;
    assert_ne!(list().await.expect_err("it refuses"), "silence");
    proxy.heal().await;
    eventually(TIMEOUT, "it passes everything again", list).await;

    proxy.hang();
    assert_eq!(list().await.expect_err("it hangs"), "silence");
    proxy.heal().await;
    eventually(TIMEOUT, "it passes everything again", list).await;

    proxy.answer(403);
    eventually(TIMEOUT, "it answers by itself", async || match list().await {
        Err(error) if error.contains("made by a test") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    proxy.cut();
    eventually(TIMEOUT, "it passes everything again", list).await;
}

/// The argument that makes this program enter a sandbox, start a process in it and wait for a line
/// to panic.
pub(crate) const HOLD: &str = "--hold";

/// The environment variable that marks the processes of a sandbox inside this one.
const MARK: &str = "EXTERNAL_ENDPOINTS_TRIAL";

#[expect(
    clippy::zombie_processes,
    reason = "that nobody waits for it is the point: the sandbox must take it along"
)]
pub(crate) fn hold() -> ! {
    sandbox::enter();
    let _child = Command::new("sleep").arg("1000").process_group(0).spawn().expect("sleep");
    println!("held");
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    panic!("as the test wants");
}

async fn nothing_is_left_after_ctrl_c() {
    ends_whole("ctrl-c", |outside| {
        killpg(pid_of(outside), Signal::SIGINT).expect("the group is there");
    })
    .await;
}

async fn nothing_is_left_after_a_kill() {
    ends_whole("kill", |outside| {
        kill(pid_of(outside), Signal::SIGKILL).expect("it runs");
    })
    .await;
}

async fn nothing_is_left_after_a_panic() {
    ends_whole("panic", |outside| drop(outside.stdin.take())).await;
}

/// Starts a sandbox inside this one, ends it, and waits until all of its processes are gone.
async fn ends_whole(mark: &'static str, end: impl FnOnce(&mut Child)) {
    let mut outside = Command::new(std::env::current_exe().expect("this program"))
        .arg(HOLD)
        .env_remove(sandbox::STAGE)
        .env(MARK, mark)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program");
    let mut output = BufReader::new(outside.stdout.take().expect("a pipe"));
    let held = blocking(move || {
        let mut line = String::new();
        output.read_line(&mut line).map(|_| line)
    });
    assert_eq!(held.await.expect("a line"), "held\n");
    // A process shows no environment while it executes another program.
    eventually(TIMEOUT, "outside, unshare, init, inside and sleep run", async || {
        match marked(mark) {
            all if all.len() == 5 => Ok(()),
            others => Err(format!("{others:?}")),
        }
    })
    .await;
    end(&mut outside);
    let status = blocking(move || outside.wait()).await.expect("our own child");
    assert!(!status.success(), "{status}");
    eventually(TIMEOUT, "all its processes are gone", async || match marked(mark) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await;
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Returns the processes that have the mark in their environment. A process that has just ended has
/// none.
fn marked(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    let processes = std::fs::read_dir("/proc").expect("/proc");
    let with_mark = processes.flatten().filter(|process| {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    });
    with_mark.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}
