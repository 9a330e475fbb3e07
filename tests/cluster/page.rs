//! The status page beside the cluster that it is about.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::cluster::fixture::{Fixture, TIMEOUT};
use crate::support::{Daemon, case::cases, eventually};

pub(crate) fn cases() -> Vec<Trial> {
    cases![the_page_shows_what_the_cluster_holds]
}

/// The longest time for which the page may show what is no longer so, with some for a busy machine.
const MAX_DELAY: Duration = Duration::from_secs(2);

/// Waits until a page has all of these texts. They must be there within [`MAX_DELAY`] from `since`.
async fn expect_page(daemon: &Daemon, path: &str, texts: &[&str], since: Instant) {
    eventually(TIMEOUT, &format!("{path} has {texts:?}"), async || {
        let (status, page) = daemon.get(path).await;
        let late = since.elapsed() > MAX_DELAY;
        match texts.iter().all(|text| page.contains(text)) {
            true if status == 200 => Ok(()),
            _ if late => panic!("{path} lacks one of {texts:?} for {MAX_DELAY:?}: {page}"),
            _ => Err(page),
        }
    })
    .await;
}

async fn the_page_shows_what_the_cluster_holds() {
    let mut fixture = Fixture::new("page").await;
    let daemon = fixture.start_published().await;
    let [first, ..] = &fixture.ips(&[0])[..] else { panic!("no address") };
    let service = format!("{}/mysql", fixture.namespace.name);
    let texts = ["1 database, 0 in trouble; 3 addresses: 3 published", "3 of 3"];
    expect_page(&daemon, "/", &texts, Instant::now()).await;

    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    let gone = Instant::now();
    let down = format!("{first} ▼ down");
    let texts = ["1 in trouble", "2 of 3", &down, "connect: refused"];
    expect_page(&daemon, "/", &texts, gone).await;
    expect_page(&daemon, "/?show=trouble", &texts, gone).await;
    let (_, page) = daemon.get("/?show=maintenance").await;
    assert!(!page.contains(&fixture.namespace.name), "{page}");

    fixture.databases[0].restart().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let all = format!("{service}: Published, 3 of 3 published");
    let changes = ["down: connect: refused", "unpublished", "up", "published"];
    let changes = changes.map(|change| format!("{first} {change}\n"));
    let texts: Vec<&str> = changes.iter().map(String::as_str).chain([&*all]).collect();
    expect_page(&daemon, &format!("/databases/{service}"), &texts, Instant::now()).await;
}
