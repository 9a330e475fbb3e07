//! The page of ten thousand targets.

use serde_json::json;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::thread;

use super::chromium::{Chromium, MODES};
use super::daemon::eventually;
use super::sample;
use super::{daemon_of, json_of, url};

const DATABASES: usize = 3_333;
const TARGETS_EACH: usize = 3;

/// The tries of which the best counts. The machine may be busy with something else.
const TRIES: usize = 5;

/// One database of this many is down.
const DOWN_EACH: usize = 10;

/// Accepts connections on all addresses.
fn serve() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || listener.incoming().for_each(drop));
    port
}

/// Returns a config whose targets have all been tried soon.
fn config() -> String {
    let open = serve();
    let mut config = "databases:\n".to_owned();
    for database in 0..DATABASES {
        let (third, fourth) = (database / 80, database % 80 * TARGETS_EACH + 1);
        let addresses: Vec<String> =
            (0..TARGETS_EACH).map(|target| format!("198.18.{third}.{}", fourth + target)).collect();
        let addresses = addresses.join(", ");
        let port = if database % DOWN_EACH == 0 { 1 } else { open };
        writeln!(
            config,
            "- {{service: mysql-{database}, namespace: prod, port: {port}, check: {{tcp: {{}}, \
             interval: 30s}}, addresses: [{addresses}]}}"
        )
        .expect("a String takes all");
    }
    config
}

/// Measures the browser alone, as the daemon of a test is not optimised.
pub(crate) fn ten_thousand_targets_load_in_a_second() {
    let daemon = daemon_of(&config());
    eventually("all targets have been tried", || {
        let status = json_of(&daemon, "/api/v1/status");
        let databases = status["databases"].as_array()?;
        let mut targets = databases
            .iter()
            .flat_map(|database| database["targets"].as_array().into_iter().flatten());
        targets.all(|target| target["health"] != "unknown").then_some(())
    });
    let mut browser = Chromium::start();
    let mode = MODES[0];
    browser.set_mode(mode);
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": false}),
    );
    browser.open(&url(&daemon, "/?refresh=off"));
    let rows = browser.evaluate("document.querySelectorAll('tbody tr').length");
    assert_eq!(rows, DATABASES * TARGETS_EACH);
    let page = browser.evaluate("document.documentElement.outerHTML");
    let page = page.as_str().expect("a page").to_owned();
    assert!(page.len() < 6_500_000, "{} bytes", page.len());
    let address = sample::serve_pages(vec![("/".to_owned(), page)]);
    browser.call("Performance.enable", json!({"timeDomain": "threadTicks"}));
    let url = format!("http://{address}/");
    let loads: Vec<(f64, f64)> = (0..TRIES).map(|_| load(&mut browser, &url)).collect();
    let best = |times: Vec<f64>| times.into_iter().fold(f64::INFINITY, f64::min);
    let (busy, load) = loads.into_iter().unzip();
    let (busy, load) = (best(busy), best(load));
    println!("ten thousand targets: loaded in {load:.2} s, of which {busy:.2} s of work");
    // The machine may be busy with something else, which delays the event but is no work.
    assert!(busy < 1.0, "{busy} s");
}

/// Loads a page. Returns the processor time of the thread that shows it, and the time to its `load`
/// event, both in seconds.
fn load(browser: &mut Chromium, url: &str) -> (f64, f64) {
    browser.open(url);
    let metrics = browser.call("Performance.getMetrics", json!({}));
    let mut metrics = metrics["metrics"].as_array().into_iter().flatten();
    let busy = metrics.find(|metric| metric["name"] == "TaskDuration");
    let busy = busy.and_then(|metric| metric["value"].as_f64()).expect("a metric");
    let load = browser.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd");
    (busy, load.as_f64().expect("a time") / 1000.0)
}
