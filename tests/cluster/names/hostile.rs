//! A name server that does every fault to hundreds of names, while fifty databases keep their
//! schedule.

use std::time::Duration;

use libtest_mimic::Trial;

use super::fixture::{expect_metric, name_server, start};
use crate::cluster::hostile::{GOOD, assert_on_schedule};
use crate::support::name_server::{Mismatch, Reply};
use crate::support::{Database, addresses, case::cases, shared};

pub(super) fn cases() -> Vec<Trial> {
    cases![in hostile: hostile_dns_delays_nobody]
}

const NAMES: usize = 400;

/// Returns a fault of a name server. None of them has an address that is well.
fn fault(index: usize) -> Reply {
    let nobody = || Reply::addresses(["192.0.2.77"], 0);
    let many = (0..500_u16).map(|n| [192, 0, 3 + (n >> 8) as u8, n as u8].into()).collect();
    let others = (0..200).map(|host| vec![[192, 0, 5, host].into()]).collect();
    match index % 10 {
        0 => Reply::Silence,
        1 => Reply::Garbage(vec![0xc0; 4096]),
        2 => Reply::TruncatedWithoutTcp,
        3 => Reply::After(Mismatch::Question, Box::new(nobody())),
        4 => Reply::After(Mismatch::Port, Box::new(Reply::Silence)),
        5 => nobody().late(Duration::from_secs(4)),
        6 => Reply::Alias(name(index), 0),
        // One is enough: its hundred addresses are as many targets.
        7 if index < 10 => Reply::Addresses(many, 0),
        7 => Reply::Code(2),
        8 => Reply::Turns(others, 0),
        _ => Reply::Truncated(Box::new(Reply::Silence)),
    }
}

fn name(index: usize) -> String {
    format!("db-{index}.hostile.example")
}

async fn hostile_dns_delays_nobody() {
    let namespace = shared().namespace("hostile-dns").await;
    let dns = name_server().await;
    let mut good = Vec::new();
    for ip in addresses::allocate(GOOD) {
        good.push(Database::start(ip, 3306).await);
    }
    let ips: Vec<String> = good.iter().map(|database| database.ip.to_string()).collect();
    let mut yaml = format!(
        "defaults:
  namespace: {}
  check: {{tcp: {{accept: true}}, interval: 1s, timeout: 1s}}
databases:
- service: good
  port: 3306
  addresses: [{}]
  check: {{timeout: 5s}}
",
        namespace.name,
        ips.join(", ")
    );
    for index in 0..NAMES {
        dns.set(&name(index), fault(index));
        let service = format!("hostile-{index}");
        let name = name(index);
        yaml += &format!("- {{service: {service}, port: 3306, addresses: [{name}]}}\n");
    }
    let mut daemon = start(&dns, &yaml).await;
    // All of them have been asked once, and some more often.
    expect_metric(&daemon, "name_resolved", &[("name", &name(0))], Some(0.0)).await;
    expect_metric(&daemon, "name_resolved", &[("name", &name(NAMES - 10))], Some(0.0)).await;
    assert_on_schedule(&daemon, &good).await;
    let (status, took) = daemon.terminate().await;
    assert!(status.success() && took < Duration::from_secs(1), "{status} after {took:?}");
}
