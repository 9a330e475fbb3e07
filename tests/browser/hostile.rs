//! Databases that answer with text which is meant for the browser of the person who looks.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::Value;

use super::chromium::{Chromium, MODES};
use super::daemon::{Daemon, eventually};
use super::{axe, daemon_of, json_of, url};

/// Returns the answers. The first database gives the first one.
fn answers() -> Vec<String> {
    let mut answers: Vec<String> = [
        "<script>document.title='owned'</script>",
        "\"><img src=x onerror=\"document.title='owned'\">",
        "'><svg onload=document.title='owned'>",
        "</bdi></td></tr></table><script>alert(1)</script>",
        "</title><script>alert(1)</script>",
        "</style><script>alert(1)</script>",
        "<style>*{display:none}</style>",
        "<link rel=stylesheet href=http://127.0.0.1:1/x.css>",
        "<meta http-equiv=refresh content='0;url=http://127.0.0.1:1/'>",
        "<base href=http://127.0.0.1:1/>",
        "<iframe src=javascript:alert(1)></iframe>",
        "<iframe srcdoc='<script>parent.document.title=1</script>'>",
        "<object data=data:text/html,x></object><embed src=x>",
        "<form action=http://127.0.0.1:1/><button>Go on</button></form>",
        "<a href=\"javascript:alert(1)\">prod/mysql is fine</a>",
        "<plaintext>",
        "<xmp><textarea><!-- ",
        "--><script>alert(1)</script><!--",
        "<![CDATA[<script>alert(1)</script>]]>",
        "&lt;script&gt;alert(1)&lt;/script&gt;&#60;b&#62;",
        "{{constructor.constructor('alert(1)')()}} ${alert(1)} <%= x %>",
        "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
        "<div style='position:fixed;inset:0;background:red'>",
        "<input autofocus onfocus=alert(1)><details open ontoggle=alert(1)>",
        "\u{0}<scr\u{0}ipt>alert(1)</script>",
        "\u{1b}[31m\u{7}\r\n\tHTTP/1.1 200 OK\r\n\r\n<script>alert(1)</script>",
        "<math><mtext></p><mglyph><svg><style><img src onerror=alert(1)>",
    ]
    .map(str::to_owned)
    .into();
    answers.push("\u{202e}".repeat(65_536 / 3) + "<script>");
    answers.push("Z\u{310}\u{311}\u{312}\u{313}\u{314}\u{315}".repeat(500));
    answers.push("W".repeat(65_536));
    answers
}

/// Answers on all addresses. The last number of an address says with which text.
fn serve() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        let answers = answers();
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            let number = stream.local_addr().expect("an address").to_string();
            let number = number.split(['.', ':']).nth(3).expect("a number").parse::<usize>();
            let text = answers[number.expect("a number") - 1].clone();
            thread::spawn(move || { &stream }.write_all(text.as_bytes()));
        }
    });
    port
}

/// Returns a daemon whose exec check prints what the databases answer.
fn daemon() -> Daemon {
    let mut config = format!(
        "databases:\n- service: mysql\n  namespace: prod\n  port: {}\n  check:\n    exec:\n      \
         command: [bash, -c, 'exec 3<>/dev/tcp/$TARGET_IP/$TARGET_PORT; cat <&3; exit 1']\n      \
         env: {{PATH: '/usr/bin:/bin'}}\n    interval: 2s\n    timeout: 2s\n  addresses:\n",
        serve(),
    );
    for number in 1..=answers().len() {
        writeln!(config, "  - 198.18.0.{number}").expect("a String takes all");
    }
    daemon_of(&config)
}

/// The elements and attributes that the page has. Any other one came from a database.
const ELEMENTS: &str = "html head meta title style body header p strong span bdi time nav ul li a \
                        form label input button main h1 h2 section table thead tbody tr th td \
                        small svg path code";
const ATTRIBUTES: &str = "lang charset name content href aria-label aria-current role action for \
                          id type maxlength value class scope datetime viewBox d";

/// The names of elements and attributes that the page should not have, as text.
const STRANGERS: &str = "[...document.querySelectorAll('*')].flatMap(element => \
     [element.localName, ...element.getAttributeNames().map(name => '@' + name)])\
     .filter(name => !known.has(name)).join(' ')";

fn assert_nothing_ran(browser: &mut Chromium, what: &str) {
    let known: Vec<String> = ELEMENTS
        .split_whitespace()
        .map(str::to_owned)
        .chain(ATTRIBUTES.split_whitespace().map(|name| format!("@{name}")))
        .collect();
    let known = serde_json::to_string(&known).expect("names");
    let strangers = browser
        .evaluate(&format!("(() => {{const known = new Set({known}); return {STRANGERS}}})()"));
    assert_eq!(strangers, "", "{what}");
    let mut requests = Vec::new();
    for event in browser.take_events() {
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                requests.push(event["params"]["request"]["url"].to_string());
            }
            "Page.javascriptDialogOpening"
            | "Runtime.consoleAPICalled"
            | "Runtime.exceptionThrown"
            | "Log.entryAdded"
            | "Audits.issueAdded" => panic!("{what}: {event}"),
            _ => {}
        }
    }
    assert_eq!(requests.len(), 1, "{what}: only the page itself is loaded: {requests:?}");
}

/// Asserts that nothing is wider than the window and no row is out of proportion.
fn assert_layout_stands(browser: &mut Chromium, what: &str) {
    let wide = browser.evaluate("document.documentElement.scrollWidth - innerWidth");
    assert!(wide.as_i64() <= Some(0), "{what}: {wide} px too wide");
    let highest = browser.evaluate(
        "Math.max(...[...document.querySelectorAll('tbody tr')].map(row => row.offsetHeight))",
    );
    assert!(highest.as_u64() < Some(700), "{what}: a row of {highest} px");
}

/// Asserts that each reason is shown as the API has it, unless it has invisible characters.
fn assert_reasons_are_shown(browser: &mut Chromium, reasons: &[String]) {
    let text = browser.evaluate("document.body.textContent");
    let text = text.as_str().expect("text");
    for reason in reasons {
        let start: String = reason.chars().take(100).collect();
        assert!(text.contains(&start), "{start:?} is not shown");
    }
}

pub(crate) fn nothing_that_a_database_says_runs_or_breaks_the_page() {
    let daemon = daemon();
    let reasons: Vec<String> = eventually("all databases have answered", || {
        let status = json_of(&daemon, "/api/v1/status");
        let targets = status["databases"][0]["targets"].as_array()?.clone();
        let reason = |target: &Value| target["reason"].as_str().map(str::to_owned);
        let is_down = |target: &Value| target["health"] == "down";
        let reasons: Option<Vec<String>> =
            targets.iter().filter(|target| is_down(target)).map(reason).collect();
        reasons.filter(|reasons| reasons.len() == 30)
    });
    let shown = reasons.iter().filter(|reason| reason.contains('<')).count();
    assert!(shown > 20, "the checks repeat what the databases say: {reasons:#?}");
    let mut browser = Chromium::start();
    for mode in MODES {
        browser.set_mode(mode);
        for path in ["/?refresh=off", "/databases/prod/mysql?refresh=off"] {
            let what = format!("{path} in {}", mode.name);
            browser.take_events();
            browser.open(&url(&daemon, path));
            assert_nothing_ran(&mut browser, &what);
            assert_layout_stands(&mut browser, &what);
            assert_reasons_are_shown(&mut browser, &reasons);
            let title = browser.evaluate("document.title");
            assert!(title.as_str().is_some_and(|it| it.contains("in trouble")), "{what}: {title}");
            let place = if path.len() > 20 { "database" } else { "overview" };
            let picture = format!("hostile-{place}-{}.png", mode.name);
            browser.screenshot(&axe::pictures().join(picture));
            axe::assert_accessible(&mut browser, &what);
        }
    }
}

pub(crate) fn nothing_in_a_query_runs_or_breaks_the_page() {
    let daemon = daemon_of(
        "databases:\n- {service: a, namespace: b, port: 1, check: {tcp: {}}, addresses: \
         [198.18.0.1]}\n",
    );
    let mut browser = Chromium::start();
    browser.set_mode(MODES[0]);
    for answer in answers() {
        let text: String = answer.chars().take(60).collect();
        let escaped: String = text.bytes().fold(String::new(), |mut text, byte| {
            write!(text, "%{byte:02x}").expect("a String takes all");
            text
        });
        browser.take_events();
        let _ = TcpStream::connect(daemon.pages());
        browser.open(&url(&daemon, &format!("/?refresh=off&q={escaped}")));
        if browser.evaluate("document.contentType") == "text/html" {
            assert_nothing_ran(&mut browser, &text);
            assert_layout_is_narrow(&mut browser, &text);
        } else {
            assert!(escaped.len() > 3 * 200, "{text:?} was refused");
        }
    }
}

fn assert_layout_is_narrow(browser: &mut Chromium, what: &str) {
    let wide = browser.evaluate("document.documentElement.scrollWidth - innerWidth");
    assert!(wide.as_i64() <= Some(0), "{what}: {wide} px too wide");
}
