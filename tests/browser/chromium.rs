//! A headless Chromium, steered by the DevTools protocol over two pipes. The protocol is JSON, and
//! these tests need a dozen of its calls, so they need no client library with all of them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The names of the browser, the smallest first.
const PROGRAMS: [&str; 3] = ["chromium-headless-shell", "chromium", "google-chrome"];

/// The longest time for an answer of the browser, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the browser of this machine.
pub(crate) fn find() -> Option<&'static str> {
    let path = std::env::var_os("PATH")?;
    let is_there = |name: &&str| std::env::split_paths(&path).any(|dir| dir.join(name).exists());
    PROGRAMS.into_iter().find(is_there)
}

/// A browser with one tab.
pub(crate) struct Chromium {
    child: Child,
    calls: ChildStdin,
    messages: Receiver<Value>,
    /// The events since they were taken last.
    events: Vec<Value>,
    session: Option<String>,
    last_id: u64,
    _profile: TempDir,
}

/// The way in which a page is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    pub name: &'static str,
    pub width: u32,
    pub color_scheme: &'static str,
    pub forced_colors: &'static str,
}

/// The modes that each page is tried in.
pub(crate) const MODES: [Mode; 4] = [
    Mode { name: "light", width: 1200, color_scheme: "light", forced_colors: "none" },
    Mode { name: "dark", width: 1200, color_scheme: "dark", forced_colors: "none" },
    Mode { name: "forced-colors", width: 1200, color_scheme: "dark", forced_colors: "active" },
    Mode { name: "narrow", width: 320, color_scheme: "light", forced_colors: "none" },
];

impl Chromium {
    /// Starts the browser with an empty tab that reports all that happens in it.
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        let log = File::create(profile.path().join("log")).expect("a file");
        // The browser reads calls from descriptor 3 and writes answers to descriptor 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >&2", "sh"])
            .arg(find().expect("a Chromium"))
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--hide-scrollbars", "--no-first-run", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a shell");
        let (sender, messages) = channel();
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        thread::spawn(move || {
            let mut text = Vec::new();
            while answers.read_until(0, &mut text).is_ok_and(|length| length > 0) {
                text.pop();
                let message = serde_json::from_slice(&text).expect("JSON");
                text.clear();
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let calls = child.stdin.take().expect("a pipe");
        let (events, session, last_id) = (Vec::new(), None, 0);
        let mut browser =
            Self { child, calls, messages, events, session, last_id, _profile: profile };
        browser.open_tab();
        browser
    }

    fn open_tab(&mut self) {
        let tab = self.call("Target.createTarget", json!({"url": "about:blank"}));
        let target = json!({"targetId": tab["targetId"], "flatten": true});
        let session = self.call("Target.attachToTarget", target);
        self.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Audits", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Calls a method and returns its result.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.try_call(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method and returns its result, or the browser's error.
    fn try_call(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut call = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            call["sessionId"] = session.as_str().into();
        }
        let text = call.to_string() + "\0";
        self.calls.write_all(text.as_bytes()).expect("the browser runs");
        let answer = self.receive(method, |message| message["id"] == id);
        match &answer["error"] {
            Value::Null => Ok(answer["result"].clone()),
            error => Err(error.clone()),
        }
    }

    /// Waits for a message. Keeps the events that come before it.
    fn receive(&mut self, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let message = match self.messages.recv_timeout(rest) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => panic!("{what}: no answer from the browser"),
                Err(RecvTimeoutError::Disconnected) => panic!("{what}: the browser has ended"),
            };
            if message["method"].is_string() {
                self.events.push(message.clone());
            }
            if is_wanted(&message) {
                return message;
            }
        }
    }

    /// Returns the events since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.events)
    }

    /// Shows the next pages in this way. They are so high that nothing of them is out of view.
    pub(crate) fn set_mode(&mut self, mode: Mode) {
        let features = json!([
            {"name": "prefers-color-scheme", "value": mode.color_scheme},
            {"name": "forced-colors", "value": mode.forced_colors},
        ]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
        let size = json!({
            "width": mode.width, "height": 6000, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Opens a page, and returns once it is loaded and laid out.
    pub(crate) fn open(&mut self, url: &str) {
        let result = self.call("Page.navigate", json!({"url": url}));
        assert!(result["errorText"].is_null(), "{url}: {result}");
        if !self.events.iter().any(is_load) {
            self.receive("load", is_load);
        }
        self.events.retain(|event| !is_load(event));
        self.evaluate("document.body.offsetHeight");
    }

    /// Returns the value of a JavaScript expression. The policy of the page does not concern it.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true,
        });
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression:.200}: {result}");
        result["result"]["value"].clone()
    }

    /// Returns whether an expression is true, on a page that may be about to be replaced.
    pub(crate) fn is_true(&mut self, expression: &str) -> bool {
        let result = self.try_call("Runtime.evaluate", json!({"expression": expression}));
        result.is_ok_and(|result| result["result"]["value"] == true)
    }

    /// Keeps a picture of the page for people.
    pub(crate) fn screenshot(&mut self, path: &Path) {
        let height = self.evaluate("document.body.offsetHeight");
        let width = self.evaluate("innerWidth");
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let picture = self.call("Page.captureScreenshot", json!({"clip": clip}));
        let data = picture["data"].as_str().expect("a picture");
        let decode = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, data);
        std::fs::write(path, decode.expect("base64")).expect("a file");
    }
}

fn is_load(message: &Value) -> bool {
    message["method"] == "Page.loadEventFired"
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
