//! The page as people use it.

use std::net::TcpStream;

use super::chromium::{Chromium, MODES};
use super::daemon::{Daemon, eventually};
use super::{axe, daemon_of, sample, url};

pub(crate) fn every_state_can_be_read_by_everybody() {
    let address = sample::serve(sample::status());
    let mut browser = Chromium::start();
    for mode in MODES {
        browser.set_mode(mode);
        for path in ["/", "/databases/prod/orders"] {
            let what = format!("{path} in {}", mode.name);
            browser.open(&format!("http://{address}{path}"));
            // A picture makes the browser lay out all of the page.
            let picture = format!("sample{}-{}.png", path.replace('/', "-"), mode.name);
            browser.screenshot(&axe::pictures().join(picture));
            for text in ["▲ up", "▼ down", "◆ flapping", "■ maintenance", "? unknown"] {
                let query = format!("document.body.innerText.includes('{text}')");
                assert_eq!(browser.evaluate(&query), true, "{what}: {text}");
            }
            let wide = browser.evaluate("document.documentElement.scrollWidth - innerWidth");
            assert!(wide.as_i64() <= Some(0), "{what}: {wide} px too wide");
            axe::assert_accessible(&mut browser, &what);
        }
    }
}

/// Returns a daemon with two databases, whose targets refuse all connections.
fn daemon() -> Daemon {
    daemon_of(
        "databases:\n- {service: mysql, namespace: prod, port: 1, check: {tcp: {}}, addresses: \
         [198.18.0.1, {address: 198.18.0.2, maintenance: disk swap}]}\n- {service: redis, \
         namespace: prod, port: 1, check: {tcp: {}}, addresses: [198.18.1.1]}\n",
    )
}

/// Returns the headings of the databases that are shown.
fn shown(browser: &mut Chromium) -> String {
    let headings = "[...document.querySelectorAll('h2')].map(it => it.textContent).join(' ')";
    browser.evaluate(headings).as_str().expect("text").to_owned()
}

/// Clicks an element, and waits for the page that this opens.
fn click(browser: &mut Chromium, selector: &str) -> String {
    browser.evaluate("window.old = true; 0");
    browser.evaluate(&format!("setTimeout(() => document.querySelector('{selector}').click()); 0"));
    eventually("another page", || {
        browser.is_true("document.readyState === 'complete' && !window.old").then_some(())
    });
    browser.evaluate("location.pathname + location.search").as_str().expect("text").to_owned()
}

pub(crate) fn people_search_filter_and_pause() {
    let daemon = daemon();
    let mut browser = Chromium::start();
    browser.set_mode(MODES[0]);
    browser.open(&url(&daemon, "/"));
    assert!(shown(&mut browser).contains("prod/mysql"), "{}", shown(&mut browser));
    let is_refresh = |event: &serde_json::Value| event["params"]["reason"] == "httpHeaderRefresh";
    eventually("the page is to be loaded again", || {
        browser.evaluate("0");
        browser.take_events().iter().any(is_refresh).then_some(())
    });
    let place = click(&mut browser, "form a");
    assert_eq!(place, "/?refresh=off");
    browser.take_events();
    browser.evaluate("document.querySelector('#q').value = 'redis <b>'; 0");
    let place = click(&mut browser, "button");
    assert_eq!(place, "/?refresh=off&q=redis+%3Cb%3E", "a search keeps the pause");
    assert_eq!(shown(&mut browser), "");
    browser.evaluate("document.querySelector('#q').value = 'redis'; 0");
    click(&mut browser, "button");
    assert_eq!(shown(&mut browser), "prod/redis");
    click(&mut browser, "h2 a");
    assert_eq!(browser.evaluate("location.pathname"), "/databases/prod/redis");
    assert_eq!(click(&mut browser, "nav a"), "/", "back to all databases");
    let place = click(&mut browser, "nav li:nth-child(3) a");
    assert_eq!(place, "/?show=maintenance");
    assert_eq!(shown(&mut browser), "prod/mysql");
    assert!(!browser.take_events().iter().any(|event| event["method"] == "Log.entryAdded"));
}

/// Sends a request, and returns the status and the whole answer.
fn request(daemon: &Daemon, head: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(daemon.pages()).expect("a connection");
    write!(stream, "{head}\r\nHost: a\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn the_page_is_served_as_it_should_be() {
    let daemon = daemon();
    let html = "Accept: text/html";
    let long = format!("GET /?q={} HTTP/1.1", "x".repeat(201));
    for (head, parts) in [
        (&*format!("GET / HTTP/1.1\r\n{html}"), &["200 OK", "<!DOCTYPE html>", "refresh: 10"][..]),
        ("GET / HTTP/1.1\r\nAccept: */*", &["200 OK", "text/plain", "NAMESPACE", "mysql"]),
        ("GET / HTTP/1.1", &["200 OK", "text/plain", "vary: accept"]),
        ("GET /databases/prod/mysql HTTP/1.1", &["200 OK", "text/plain", "198.18.0.2"]),
        ("GET /databases/prod/none HTTP/1.1", &["404 Not Found", "/api/v1/status"]),
        ("GET /databases/prod/%ff HTTP/1.1", &["400 Bad Request"]),
        ("GET /databases/..%2f..%2fetc/passwd HTTP/1.1", &["404 Not Found"]),
        ("GET /favicon.ico HTTP/1.1", &["404 Not Found", "try /"]),
        ("POST / HTTP/1.1\r\nContent-Length: 0", &["405 Method Not Allowed", "allow: GET,HEAD"]),
        ("DELETE /databases/prod/mysql HTTP/1.1", &["405 Method Not Allowed", "GET or HEAD"]),
        ("GET /?show=healthy HTTP/1.1", &["400 Bad Request", "trouble, down, maintenance, all"]),
        ("GET /?refresh=5 HTTP/1.1", &["400 Bad Request", "neither on nor off"]),
        (&*long, &["400 Bad Request", "q is too long"]),
        ("GET /?&&=&%=%%%&show=all&x[]=1 HTTP/1.1", &["200 OK"]),
    ] {
        let answer = request(&daemon, head);
        let common = ["nosniff", "no-store", "no-referrer", "default-src 'none'"];
        for part in parts.iter().chain(&common) {
            assert!(answer.contains(part), "{head}: {part:?} is not in {answer}");
        }
        assert!(!answer.contains("unsafe"), "{head}: {answer}");
    }
    let head = request(&daemon, &format!("HEAD / HTTP/1.1\r\n{html}"));
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
    let paused = request(&daemon, &format!("GET /?refresh=off HTTP/1.1\r\n{html}"));
    assert!(!paused.contains("\r\nrefresh:"), "{paused}");
}
