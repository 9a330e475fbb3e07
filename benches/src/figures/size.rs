//! How the checkers grow with the number of targets: memory, and at the most targets also their share of a CPU and how fast the
//! daemon's pages answer.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::contender::Contender;
use crate::fleet::{Fleet, Kind, port};
use crate::machine::{self, MILLI, SECOND};
use crate::row::Row;
use crate::timing::{median, quantile};
use crate::trial::Setting;

/// The daemon has no cluster here; what its cluster client adds is measured where there is one.
pub fn memory(setting: &Setting, sizes: &[usize]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let able = [Contender::Haproxy, Contender::Before, Contender::Daemon];
    for who in able.into_iter().filter(|who| setting.can(*who, Kind::Tcp)) {
        for targets in sizes {
            eprintln!("bench: memory of {} at {targets} targets", who.name());
            let memory = setting.measure(who, Kind::Tcp, *targets, false)?.memory;
            rows.push(Row::new(
                format!("memory: {}, {targets} targets", who.name()),
                memory,
                "MiB",
                "tcp, no cluster",
            ));
        }
    }
    Ok(rows)
}

/// With so many requests for each page.
pub fn ten_thousand(setting: &Setting, targets: usize, requests: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for who in [Contender::Haproxy, Contender::Daemon] {
        let mut shares = Vec::new();
        let mut detail = String::new();
        for round in 1..=setting.rounds {
            let sample = setting.measure(who, Kind::Tcp, targets, false)?;
            eprintln!(
                "bench: {targets} targets, round {round}: {} {:.3} of a CPU",
                who.name(),
                sample.share
            );
            detail = format!("tcp, {targets} targets; {:.3} of the checks due", sample.rate);
            shares.push(sample.share);
        }
        let name = format!("ten-thousand: {}", who.name());
        let row = Row::new(name, median(&mut shares).context("a round")?, "of a CPU", detail);
        rows.push(if who == Contender::Daemon { row.at_most(0.5) } else { row });
    }
    rows.extend(pages(setting, targets, requests)?);
    Ok(rows)
}

/// Asks the daemon for its pages while it checks.
fn pages(setting: &Setting, targets: usize, requests: usize) -> Result<Vec<Row>> {
    let fleet = Fleet::uniform(Kind::Tcp, targets, setting.interval);
    let mut running = setting.warm_up(Contender::Daemon, Kind::Tcp, &fleet)?;
    let mut rows = Vec::new();
    for page in ["/metrics", "/api/v1/status"] {
        let mut times = Vec::new();
        let mut size = 0;
        for _ in 0..requests {
            let (time, body) = fetch(page)?;
            times.push(time as f64 / MILLI as f64);
            size = body.len();
            // No multiple of the interval, so that each request meets another phase of it.
            thread::sleep(Duration::from_nanos(87 * MILLI));
        }
        running.must_live()?;
        let half = median(&mut times).context("a request")?;
        let detail =
            format!("{requests} requests, half of them in {half:.1} ms; {} KiB", size >> 10);
        let most = quantile(&mut times, 1.0).context("a request")?;
        rows.push(
            Row::new(format!("ten-thousand: {page}"), most, "ms at most", detail).at_most(50.0),
        );
    }
    Ok(rows)
}

/// Nanoseconds until the whole page was there, and its body.
pub fn fetch(page: &str) -> Result<(u64, Vec<u8>)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::PAGES));
    let start = machine::now();
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_nanos(5 * SECOND)))?;
    // In HTTP/1.0 the body is what comes until the end.
    write!(connection, "GET {page} HTTP/1.0\r\nHost: bench\r\n\r\n")?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).with_context(|| page.to_owned())?;
    let time = machine::now() - start;
    let head = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .with_context(|| format!("{page}: no answer"))?;
    let body = answer.split_off(head + 4);
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.split(' ').nth(1) == Some("200"), "{page}: {answer}");
    Ok((time, body))
}
