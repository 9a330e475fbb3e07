//! The daemon as a process: signals, dry runs, pages, metrics and logs.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::cluster::fixture::{CHECK, Fixture, TIMEOUT, config, database, wait_for_checks};
use crate::support::{
    ApiProxy, Behavior, Daemon, Database, addresses, blocking, case::cases, eventually, shared,
    temp_dir,
};

/// The longest time that a stop takes on a busy machine. One that waits for something hanging takes
/// longer.
const AT_ONCE: Duration = Duration::from_secs(4);

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        signals_leave_what_is_published,
        a_second_signal_ends_at_once,
        a_dry_run_needs_no_cluster,
        a_dry_run_shows_the_difference,
        without_a_cluster_it_says_what_to_do,
        credentials_that_hang_or_fail,
        promtool_accepts_the_metrics,
        a_suspended_daemon_counts_no_failures,
        a_secret_appears_in_no_output,
    ]
}

async fn signals_leave_what_is_published() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let fixture = Fixture::new("signals").await;
        let mut daemon = fixture.start_published().await;
        let history = fixture.history().await;
        let asked = Instant::now();
        daemon.signal(signal);
        let status = daemon.wait().await;
        let took = asked.elapsed();
        assert!(status.success(), "{status}");
        assert!(took < AT_ONCE, "{signal} took {took:?}");
        assert_eq!(history.steps(), []);
        assert_eq!(fixture.namespace.endpoint_ips("mysql").await, fixture.ips(&[0, 1, 2]));
    }
}

async fn a_second_signal_ends_at_once() {
    // Also in the middle of a hanging start and of a hanging check.
    let fixture = Fixture::new("second").await;
    let proxy = ApiProxy::start(shared()).await;
    proxy.hang();
    let mut daemon = Daemon::start(&fixture.config(), &proxy.kubeconfig(), &[]).await;
    let asked = Instant::now();
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGINT);
    daemon.wait().await;
    assert!(asked.elapsed() < AT_ONCE, "took {:?}", asked.elapsed());
}

async fn a_dry_run_needs_no_cluster() {
    let ip = addresses::allocate_one();
    let mut live = Database::start(ip, 3306).await;
    let yaml = config("prod", &ip.to_string(), "{tcp: {}, interval: 250ms, timeout: 1s}", "");
    let daemon =
        Daemon::start(&yaml, &temp_dir("nothing").join("kubeconfig"), &["--dry-run"]).await;
    let says = async |reason: String| {
        eventually(TIMEOUT, &reason, async || {
            let database = database(&daemon.status().await);
            if database["condition"] == "DryRun" && database["reason"] == reason {
                Ok(())
            } else {
                Err(database.to_string())
            }
        })
        .await;
    };
    says(format!("would publish {ip}")).await;
    live.stop().await;
    says("would publish none".to_owned()).await;
    assert_eq!(daemon.get("/readyz").await.0, 200);
}

async fn a_dry_run_shows_the_difference() {
    let mut fixture = Fixture::new("dry").await;
    drop(fixture.start_published().await);
    let history = fixture.history().await;
    fixture.databases[1].stop().await;
    let daemon = Daemon::start(&fixture.config(), &shared().kubeconfig(), &["--dry-run"]).await;
    let reason = fixture.expect_condition(&daemon, "DryRun").await;
    let rest = fixture.ips(&[0, 2]).join(", ");
    assert_eq!(reason, format!("would publish {rest} (-{})", fixture.databases[1].ip));
    assert_eq!(history.steps(), []);
}

async fn without_a_cluster_it_says_what_to_do() {
    let yaml = config("prod", "192.0.2.7", "{tcp: {}}", "");
    let mut daemon = Daemon::spawn(&yaml, None, &[]);
    assert_eq!(daemon.wait().await.code(), Some(1));
    let said = daemon.lines().join("\n");
    assert!(said.contains("set KUBECONFIG, or use --dry-run"), "{said}");
}

/// Writes a kubeconfig whose credentials come from a command.
fn kubeconfig_with_command(script: &str) -> std::path::PathBuf {
    let path = temp_dir("command").join("kubeconfig");
    let text = format!(
        "apiVersion: v1
kind: Config
current-context: a
contexts: [{{name: a, context: {{cluster: a, user: a}}}}]
clusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:1'}}}}]
users:
- name: a
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: /bin/sh
      args: [-c, '{script}']
      interactiveMode: Never
"
    );
    std::fs::write(&path, text).expect("a file in the sandbox");
    path
}

async fn credentials_that_hang_or_fail() {
    let ip = addresses::allocate_one();
    let yaml = config("prod", &ip.to_string(), CHECK, "");
    // A hanging command must not delay the exit or, in a dry run, the checks.
    let mut daemon =
        Daemon::start(&yaml, &kubeconfig_with_command("exec /bin/sleep 60"), &[]).await;
    let (status, took) = daemon.terminate().await;
    assert!(status.success() && took < Duration::from_secs(1), "{status} after {took:?}");

    let failing = kubeconfig_with_command("echo a-token-that-is-secret; exit 3");
    let mut daemon = Daemon::spawn(&yaml, Some(&failing), &[]);
    assert_eq!(daemon.wait().await.code(), Some(1));
    let said = daemon.lines().join("\n");
    assert!(said.contains("ended with exit status: 3"), "{said}");
    assert!(!said.contains("a-token-that-is-secret"), "{said}");
    assert!(
        daemon.lines().iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "all in JSON: {said}"
    );
}

async fn promtool_accepts_the_metrics() {
    let mut fixture = Fixture::new("metrics").await;
    let daemon = fixture.start_published().await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    let page = daemon.metrics().await;
    let output = blocking({
        let page = page.clone();
        move || {
            let mut promtool = Command::new("promtool");
            let promtool = promtool
                .args(["check", "metrics"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = promtool.spawn().expect("promtool, from Debian's package prometheus");
            child.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("promtool reads");
            child.wait_with_output().expect("promtool ends")
        }
    })
    .await;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");

    let ip = fixture.databases[0].ip.to_string();
    let of = [("namespace", fixture.namespace.name.as_str()), ("service", "mysql")];
    let of_target = [of[0], of[1], ("address", ip.as_str())];
    let metric = async |name: &str, labels: &[(&str, &str)]| {
        daemon.metric(&format!("external_endpoints_{name}"), labels).await
    };
    assert_eq!(metric("build_info", &[("version", env!("CARGO_PKG_VERSION"))]).await, Some(1.0));
    assert_eq!(metric("config_last_load_successful", &[]).await, Some(1.0));
    assert_eq!(metric("target_healthy", &of_target).await, Some(0.0));
    assert!(
        metric("checks_total", &[of_target.as_slice(), &[("result", "fail")]].concat()).await
            >= Some(3.0)
    );
    assert_eq!(
        metric("transitions_total", &[of_target.as_slice(), &[("to", "down")]].concat()).await,
        Some(1.0)
    );
    assert_eq!(metric("configured_addresses", &of).await, Some(3.0));
    assert_eq!(metric("published_addresses", &of).await, Some(2.0));
    assert_eq!(
        metric("database_condition", &[of.as_slice(), &[("condition", "Published")]].concat())
            .await,
        Some(1.0)
    );
    assert_eq!(metric("database_condition", &of).await, Some(1.0), "one condition is in force");
    // The writes: the placeholder, all addresses, and one address less.
    assert!(
        metric("writes_total", &[of.as_slice(), &[("result", "success")]].concat()).await
            >= Some(3.0)
    );
    assert!(metric("write_duration_seconds_count", &[]).await >= Some(3.0));
    assert!(metric("check_duration_seconds_count", &[("check", "tcp")]).await >= Some(6.0));
    assert!(metric("check_start_delay_seconds_count", &[]).await >= Some(6.0));
    assert!(page.contains("\nprocess_resident_memory_bytes "), "{page}");
}

async fn a_suspended_daemon_counts_no_failures() {
    let fixture = Fixture::new("still").await;
    let daemon = fixture.start_published().await;
    let history = fixture.history().await;
    assert_eq!(daemon.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(daemon.get("/readyz").await, (200, "ok\n".to_owned()));
    assert_eq!(daemon.get("/nothing").await.0, 404);
    daemon.signal(Signal::SIGSTOP);
    tokio::time::sleep(Duration::from_secs(7)).await;
    daemon.signal(Signal::SIGCONT);
    eventually(TIMEOUT, "it is well again", async || daemon.get("/healthz").await.0 == 200).await;
    wait_for_checks(&daemon, 2).await;
    assert_eq!(history.steps(), []);
}

async fn a_secret_appears_in_no_output() {
    const SECRET: &str = "correct-horse-battery";
    let folder = temp_dir("secrets");
    std::fs::write(folder.join("password"), SECRET).expect("a file in the sandbox");
    let fixture = Fixture::new("secrets").await;
    let echo = Database::start_with(
        addresses::allocate_one(),
        3306,
        Behavior::Http(500, format!("you said {SECRET}")),
    )
    .await;
    let yaml = format!(
        "defaults: {{namespace: {namespace}, check: {{interval: 250ms, timeout: 1s}}}}
databases:
- service: mysql
  port: 3306
  addresses: [{live}]
  check:
    exec:
      command: [/bin/sh, -c, 'echo \"password is $PASSWORD and $OTHER\"; exit 3']
      env: {{PASSWORD: {{file: {folder}/password}}, OTHER: {SECRET}}}
- service: web
  port: 3306
  addresses: [{echo}]
  check: {{http: {{headers: {{Authorization: 'Basic {SECRET}'}}, expectedBody: nothing}}}}
- service: raw
  port: 3306
  addresses: [{live}]
  check: {{tcp: {{send: {SECRET}, expect: nothing}}}}
",
        namespace = fixture.namespace.name,
        live = fixture.databases[0].ip,
        folder = folder.display(),
        echo = echo.ip,
    );
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    let status = eventually(TIMEOUT, "each has failed", async || {
        let status = daemon.status().await;
        let databases = status["databases"].as_array().cloned().unwrap_or_default();
        let failed =
            databases.iter().all(|database| database["targets"][0]["failures"].as_u64() >= Some(2));
        if failed { Ok(status.to_string()) } else { Err(status.to_string()) }
    })
    .await;
    assert!(status.contains("exec: exit status 3: "), "the output is quoted: {status}");
    for text in [status, daemon.metrics().await, daemon.lines().join("\n")] {
        assert!(!text.contains(SECRET), "{text}");
    }
}
