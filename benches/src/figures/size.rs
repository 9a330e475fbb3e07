//! The growth with the number of targets: memory and, for the largest number, CPU time and the
//! response time of the daemon's pages.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::machine::{self, MILLI, SECOND};
use crate::measurement::Settings;
use crate::row::Row;
use crate::subject::Subject;
use crate::timing::{median, quantile};
use crate::workload::{Kind, Workload, port};

/// Measures memory. The daemon has no cluster here; the cluster figures include the memory of its
/// cluster client.
pub(super) fn memory(settings: &Settings, sizes: &[usize]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let able = [Subject::Haproxy, Subject::Before, Subject::Daemon];
    for who in able.into_iter().filter(|who| settings.can(*who, Kind::Tcp)) {
        for targets in sizes {
            eprintln!("bench: memory of {} at {targets} targets", who.name());
            let memory = settings.measure(who, Kind::Tcp, *targets, false)?.memory;
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

/// Measures the largest number of targets, with this number of requests for each page.
pub(super) fn ten_thousand(
    settings: &Settings,
    targets: usize,
    requests: usize,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for who in [Subject::Haproxy, Subject::Daemon] {
        let mut shares = Vec::new();
        let mut detail = String::new();
        for round in 1..=settings.rounds {
            let sample = settings.measure(who, Kind::Tcp, targets, false)?;
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
        rows.push(if who == Subject::Daemon { row.at_most(0.5) } else { row });
    }
    rows.extend(pages(settings, targets, requests)?);
    Ok(rows)
}

/// Fetches the daemon's pages while it checks.
fn pages(settings: &Settings, targets: usize, requests: usize) -> Result<Vec<Row>> {
    let workload = Workload::uniform(Kind::Tcp, targets, settings.interval);
    let mut running = settings.warm_up(Subject::Daemon, Kind::Tcp, &workload)?;
    let mut rows = Vec::new();
    for page in ["/metrics", "/api/v1/status"] {
        let mut times = Vec::new();
        let mut size = 0;
        for _ in 0..requests {
            let (time, body) = fetch(page, Encoding::Gzip)?;
            times.push(time as f64 / MILLI as f64);
            size = size.max(body.len());
            // No multiple of the interval, so that each request meets another phase of it.
            thread::sleep(Duration::from_nanos(87 * MILLI));
        }
        running.ensure_running()?;
        let half = median(&mut times).context("a request")?;
        let detail =
            format!("{requests} requests, half of them in {half:.1} ms; {size} bytes with gzip");
        let most = quantile(&mut times, 1.0).context("a request")?;
        rows.push(
            Row::new(format!("ten-thousand: {page}"), most, "ms at most", detail).at_most(50.0),
        );
        let (_, plain) = fetch(page, Encoding::Identity)?;
        let detail = format!("{} bytes without gzip", plain.len());
        let name = format!("ten-thousand: {page}, on the wire");
        let row = Row::new(name, size as f64 / 1000.0, "kB at most", detail);
        rows.push(if page == "/metrics" { row.at_most(450.0) } else { row });
    }
    Ok(rows)
}

/// The encoding in which a page is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Encoding {
    /// The page as it is.
    Identity,
    /// The page compressed, as Prometheus asks for it.
    Gzip,
}

/// Fetches a page. Returns the nanoseconds until it was complete, and its body as it came.
pub(crate) fn fetch(page: &str, encoding: Encoding) -> Result<(u64, Vec<u8>)> {
    let accepted = match encoding {
        Encoding::Identity => "identity",
        Encoding::Gzip => "gzip",
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::PAGES));
    let start = machine::now();
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_nanos(5 * SECOND)))?;
    // In HTTP/1.0 the body ends with the connection.
    write!(
        connection,
        "GET {page} HTTP/1.0\r\nHost: bench\r\nAccept-Encoding: {accepted}\r\n\r\n"
    )?;
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
