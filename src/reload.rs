//! Reads the config file again and again, and tells of each config that is good and says something new; a bad one changes nothing.
//!
//! The path is followed anew at each look, so that the swap of a symlink shows, as the kubelet makes it for a ConfigMap. What counts
//! is the content, and only once two looks in a row have found the same: an editor may be in the middle of writing. SIGHUP makes
//! both looks come at once.

use std::hash::{DefaultHasher, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::clock;
use crate::config::{self, LoadedConfig, Problems, ReadError, Spec};
use crate::notice::{Notice, Reason, Recorder, Regarding};

/// How often the file is looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How soon after a look that SIGHUP asked for the second one follows.
const HANGUP_DELAY: Duration = Duration::from_millis(100);

/// Where the config is from, and how it is read.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    options: config::Options,
    /// What was last made a config of, or found bad.
    last_loaded: ContentHash,
}

impl ConfigFile {
    /// Reads the file for the first time. The error says what this host is short of, so that nothing is known of the file.
    pub(crate) fn read(
        path: PathBuf,
        options: config::Options,
    ) -> Result<(Self, Result<LoadedConfig, Problems>), String> {
        let content = config::read_file(&path);
        if let Err(ReadError::Exhausted(why)) = content {
            return Err(why);
        }
        let taken = ContentHash::of(&content);
        let loaded = config::parse_bytes(&path, content, &options);
        Ok((Self { path, options, last_loaded: taken }, loaded))
    }
}

/// The config in force, and what is wrong with the file as it is now.
#[derive(Debug, Clone)]
struct State {
    spec: Arc<Spec>,
    loaded_at: Instant,
    /// A line each; none while the file is good.
    problems: Arc<[String]>,
}

/// What the rest of the daemon holds of the config.
#[derive(Clone)]
pub(crate) struct Handle {
    file: Arc<str>,
    state: watch::Receiver<State>,
    /// The config that was given out last.
    last_delivered: Arc<Spec>,
}

impl Handle {
    /// Waits for a config that is good and other than the one before.
    pub(crate) async fn next(&mut self) -> Arc<Spec> {
        let given = self.last_delivered.clone();
        match self.state.wait_for(|standing| !Arc::ptr_eq(&standing.spec, &given)).await {
            Ok(standing) => self.last_delivered = standing.spec.clone(),
            // Nobody reads the file any more.
            Err(_) => std::future::pending().await,
        }
        self.last_delivered.clone()
    }

    /// The path of the file.
    pub(crate) fn file(&self) -> String {
        self.file.to_string()
    }

    /// What is wrong with the file as it is now, a line each.
    pub(crate) fn problems(&self) -> Arc<[String]> {
        self.state.borrow().problems.clone()
    }

    /// When the config in force was taken.
    pub(crate) fn loaded_at(&self) -> Instant {
        self.state.borrow().loaded_at
    }
}

/// Follows the file from which `spec` was read, for as long as anybody wants to know. Each `hangup` has it read at once.
pub(crate) fn start(source: ConfigFile, spec: Spec, news: Recorder, hangup: Signal) -> Handle {
    let spec = Arc::new(spec);
    let first = State { spec: spec.clone(), loaded_at: clock::now(), problems: Arc::default() };
    let (standing, standing_out) = watch::channel(first);
    let file = source.path.display().to_string().into();
    let reader = ConfigWatcher {
        source,
        last_read: None,
        was_short: false,
        state: standing,
        recorder: news,
    };
    tokio::spawn(reader.run(hangup));
    Handle { file, state: standing_out, last_delivered: spec }
}

/// The content of the file, or why it can't be had; a hash stands for the content.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ContentHash {
    Content(u64),
    None(ReadError),
}

impl ContentHash {
    fn of(content: &Result<Vec<u8>, ReadError>) -> Self {
        match content {
            Ok(content) => {
                let mut hasher = DefaultHasher::new();
                hasher.write(content);
                ContentHash::Content(hasher.finish())
            }
            Err(why) => ContentHash::None(why.clone()),
        }
    }
}

struct ConfigWatcher {
    source: ConfigFile,
    /// What the last look found.
    last_read: Option<ContentHash>,
    /// Whether this host was short of something at the last look.
    was_short: bool,
    state: watch::Sender<State>,
    recorder: Recorder,
}

impl ConfigWatcher {
    async fn run(mut self, mut hangup: Signal) {
        let mut pause = POLL_INTERVAL;
        loop {
            let path = self.source.path.clone();
            // A dead mount must block nothing else.
            if let Ok(content) = tokio::task::spawn_blocking(move || config::read_file(&path)).await
            {
                self.poll(content);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = POLL_INTERVAL,
                Some(()) = hangup.recv() => {
                    info!("SIGHUP: reading the config");
                    pause = HANGUP_DELAY;
                }
                () = self.state.closed() => return,
            }
        }
    }

    fn poll(&mut self, content: Result<Vec<u8>, ReadError>) {
        if self.is_short(&content) {
            return;
        }
        let print = ContentHash::of(&content);
        let settled = self.last_read.replace(print.clone()).is_some_and(|seen| seen == print);
        if !settled || self.source.last_loaded == print {
            return;
        }
        self.source.last_loaded = print;
        match config::parse_bytes(&self.source.path, content, &self.source.options) {
            Ok(loaded) => self.accept(loaded),
            Err(problems) => self.reject(&problems),
        }
    }

    /// Tells a host that is short of something from a file that is bad: such a look says nothing of the file.
    fn is_short(&mut self, content: &Result<Vec<u8>, ReadError>) -> bool {
        let Err(ReadError::Exhausted(why)) = content else {
            self.was_short = false;
            return false;
        };
        if !std::mem::replace(&mut self.was_short, true) {
            warn!(
                "{}: {why}; the config in force stays, and the file is tried again each second",
                self.source.path.display()
            );
        }
        true
    }

    fn accept(&self, LoadedConfig { spec, warnings }: LoadedConfig) {
        let file = self.source.path.display();
        let (was_bad, same) = {
            let held = self.state.borrow();
            (!held.problems.is_empty(), *held.spec == spec)
        };
        warnings.to_string().lines().for_each(|line| warn!("{line}"));
        match (same, was_bad) {
            (true, false) => info!(%file, "the config file has changed, and says the same"),
            (true, true) => {
                info!(%file, "the config file is good again, and says what is in force")
            }
            (false, _) => info!(%file, "the config file has changed"),
        }
        if was_bad {
            self.emit_event(Reason::ConfigGood, || format!("{file} is good again"));
        }
        self.state.send_modify(|standing| {
            standing.problems = Arc::default();
            if !same {
                standing.spec = Arc::new(spec);
                standing.loaded_at = clock::now();
            }
        });
    }

    fn reject(&self, problems: &Problems) {
        let lines: Vec<String> = problems.to_string().lines().map(str::to_owned).collect();
        lines.iter().for_each(|line| error!("{line}"));
        let file = self.source.path.display();
        error!(%file, "the config file is bad; the last good config stays in force");
        self.emit_event(Reason::ConfigBad, || {
            let first = lines.first().map_or("", String::as_str);
            let more = if lines.len() > 1 {
                format!(" (and {} more)", lines.len() - 1)
            } else {
                String::new()
            };
            format!(
                "the config file is bad, and the last good config stays in force: {first}{more}"
            )
        });
        self.state.send_modify(|standing| standing.problems = lines.into());
    }

    fn emit_event(&self, reason: Reason, note: impl FnOnce() -> String) {
        self.recorder.event(|| Notice::new(Regarding::Daemon, reason, note(), clock::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "databases: [{service: a, namespace: b, port: 1, addresses: [192.0.2.1], check: {tcp: {}}}]";

    fn other() -> String {
        GOOD.replace("192.0.2.1", "192.0.2.2")
    }

    /// A reader that is shown contents by hand, and what it tells.
    fn reader() -> (ConfigWatcher, Handle) {
        let taken = ContentHash::of(&Ok(GOOD.into()));
        let source = ConfigFile {
            path: "a.yaml".into(),
            options: config::Options::default(),
            last_loaded: taken,
        };
        let spec = config::parse("a.yaml", GOOD, &source.options).expect("a good config").spec;
        let spec = Arc::new(spec);
        let first = State { spec: spec.clone(), loaded_at: clock::now(), problems: Arc::default() };
        let (standing, standing_out) = watch::channel(first);
        let reader = ConfigWatcher {
            source,
            last_read: None,
            was_short: false,
            state: standing,
            recorder: Recorder::default(),
        };
        (reader, Handle { file: "a.yaml".into(), state: standing_out, last_delivered: spec })
    }

    /// Long enough to be taken.
    fn show(reader: &mut ConfigWatcher, text: &str) {
        (0..2).for_each(|_| reader.poll(Ok(text.into())));
    }

    fn address(handle: &Handle) -> String {
        handle.state.borrow().spec.databases[0].addresses[0].ip.to_string()
    }

    fn news(handle: &mut Handle) -> Option<Arc<Spec>> {
        futures::FutureExt::now_or_never(handle.next())
    }

    #[test]
    fn another_config_is_taken_once_two_looks_have_found_it() {
        let (mut reader, mut handle) = reader();
        assert!(news(&mut handle).is_none(), "it is what the daemon started with");
        reader.poll(Ok(other().into()));
        assert_eq!(address(&handle), "192.0.2.1");
        reader.poll(Ok(other().into()));
        assert_eq!(address(&handle), "192.0.2.2");
        assert_eq!(news(&mut handle).map(|spec| spec.databases.len()), Some(1));
        assert!(news(&mut handle).is_none());
    }

    #[test]
    fn what_reads_otherwise_and_says_the_same_is_no_news() {
        let (mut reader, mut handle) = reader();
        let since = handle.loaded_at();
        show(&mut reader, &format!("# The databases.\n{GOOD}"));
        assert!(news(&mut handle).is_none());
        assert_eq!(handle.loaded_at(), since);
    }

    #[test]
    fn a_bad_file_changes_nothing_but_what_is_wrong_and_a_good_one_ends_that() {
        let (mut reader, mut handle) = reader();
        show(&mut reader, &GOOD.replace("port: 1", "port: 0"));
        let problems = handle.problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("a.yaml:1:46: databases[0].port: "), "{problems:?}");
        let missing = ReadError::Invalid("there is no such file".into());
        (0..2).for_each(|_| reader.poll(Err(missing.clone())));
        assert_eq!(*handle.problems(), ["a.yaml: there is no such file".to_owned()]);
        show(&mut reader, "");
        assert!(handle.problems()[0].starts_with("a.yaml: is empty"));
        assert!(news(&mut handle).is_none());
        show(&mut reader, GOOD);
        assert!(handle.problems().is_empty() && news(&mut handle).is_none());
        show(&mut reader, &other());
        assert!(news(&mut handle).is_some());
    }

    #[test]
    fn a_shortage_of_descriptors_is_no_fault_of_the_file() {
        let (mut reader, mut handle) = reader();
        let short = ReadError::Exhausted("too many open files".into());
        (0..3).for_each(|_| reader.poll(Err(short.clone())));
        assert!(handle.problems().is_empty() && news(&mut handle).is_none());
        // Nor does it come between two looks that find the same.
        reader.poll(Ok(other().into()));
        reader.poll(Err(short));
        reader.poll(Ok(other().into()));
        assert!(news(&mut handle).is_some());
    }

    #[test]
    fn a_file_that_is_changed_between_the_start_and_the_first_look_is_news() {
        let (mut reader, mut handle) = reader();
        assert_eq!(reader.last_read, None);
        show(&mut reader, &other());
        assert!(news(&mut handle).is_some());
    }
}
