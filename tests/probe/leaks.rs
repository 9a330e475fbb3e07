//! The descriptors and children that many probes leave behind: none. They are counted in a process
//! of their own.

use std::process::Command;

use external_endpoints::config::{CheckKind, HttpCheck, Scheme, TcpCheck, Tls};
use rustix::process::{Resource, Rlimit, getpid, getrlimit, set_child_subreaper, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certificates::*;
use crate::exec::mark;
use crate::fixtures::*;

/// Runs an ignored test in a process of its own.
pub(crate) fn alone(test: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Returns the children of this process, with zombies and adopted orphans.
fn children() -> Vec<String> {
    let parent = format!(" {} ", std::process::id());
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let (_, after_name) = stat.rsplit_once(')')?;
        let after_state = after_name.get(2..)?;
        after_state.starts_with(&parent).then(|| stat.clone())
    });
    processes.collect()
}

#[test]
fn many_probes_leak_nothing() {
    alone("leaks::many_probes_here");
}

#[tokio::test]
#[ignore = "run by many_probes_leak_nothing"]
async fn many_probes_here() {
    // A subreaper, like the first process of a container: the orphans of commands become its
    // children.
    set_child_subreaper(Some(getpid())).unwrap();
    let server = Server::start(|mut stream| async move {
        let _ = stream.read(&mut [0; 65536]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let https = |port| {
        CheckKind::Http(HttpCheck { scheme: Scheme::Https, tls: authority.trusted(), ..http(port) })
    };
    let secure = tls_server(acceptor(&pair, Clients::All, ALL, &[])).await;
    let hanging = Server::start(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let hanging = hanging.await.in_tls(acceptor(&pair, Clients::All, ALL, &[])).await;
    let refusing = Refusing::new();
    let expecting =
        TcpCheck { send: Some(literal("x")), expect: Some("200 OK".into()), ..tcp(server.port) };
    let short = std::time::Duration::from_millis(30);
    let probers = [
        prober(CheckKind::Tcp(tcp(server.port)), PATIENT),
        prober(CheckKind::Tcp(expecting), PATIENT),
        prober(CheckKind::Tcp(tcp(refusing.port())), PATIENT),
        prober(CheckKind::Http(http(server.port)), PATIENT),
        prober(CheckKind::Redis(crate::redis::redis(server.port)), PATIENT),
        prober(CheckKind::Mongodb(crate::mongodb::mongodb(server.port)), PATIENT),
        prober(CheckKind::Grpc(crate::grpc::grpc(server.port)), PATIENT),
        prober(https(secure.port), PATIENT),
        prober(https(hanging.port), short),
        prober(CheckKind::Exec(exec(&["true"])), PATIENT),
        prober(CheckKind::Exec(exec(&["/bin/sh", "-c", "sleep 60 & sleep 60 & exit 1"])), PATIENT),
        prober(CheckKind::Exec(exec(&["/no/such/program"])), PATIENT),
        prober(
            CheckKind::Exec(mark("late", exec(&["/bin/sh", "-c", "sleep 60 & sleep 60"]))),
            short,
        ),
    ];
    let mut before = 0;
    for round in 0..25 {
        for prober in &probers {
            prober.probe().await;
        }
        if round == 4 {
            eventually("no child", || children().is_empty()).await;
            eventually("the server has let go", || descriptors() < 25).await;
            before = descriptors();
        }
    }
    eventually("no child", || children().is_empty()).await;
    eventually("no more descriptors than after five rounds", || descriptors() <= before).await;
}

#[test]
fn no_descriptor_left_is_inconclusive() {
    alone("leaks::no_descriptors_here");
}

#[tokio::test]
#[ignore = "run by no_descriptor_left_is_inconclusive"]
async fn no_descriptors_here() {
    let server = Server::silent().await;
    let tls = Tls { insecure_skip_verify: true, ..Tls::default() };
    let limit = getrlimit(Resource::Nofile);
    let probes = [
        (CheckKind::Tcp(tcp(server.port)), "connect"),
        (CheckKind::Http(http(server.port)), "connect"),
        (CheckKind::Redis(crate::redis::redis(server.port)), "connect"),
        (CheckKind::Mongodb(crate::mongodb::mongodb(server.port)), "connect"),
        (CheckKind::Grpc(crate::grpc::grpc(server.port)), "connect"),
        (CheckKind::Http(HttpCheck { scheme: Scheme::Https, tls, ..http(server.port) }), "connect"),
        (CheckKind::Exec(exec(&["/bin/true"])), "exec"),
    ];
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
    let mut verdicts = Vec::new();
    for (kind, phase) in probes {
        verdicts.push((probe_once(kind, PATIENT).await, phase));
    }
    setrlimit(Resource::Nofile, limit).unwrap();
    for (verdict, phase) in verdicts {
        assert_eq!(
            verdict,
            inconclusive(format!("{phase}: this host has no free file descriptor"))
        );
    }
}
