//! Watches the config file, and delivers each config that is good and different.
//!
//! A bad file changes nothing: the last good config stays in force. The path is resolved anew at
//! each poll, because the kubelet updates a ConfigMap by swapping a symlink. A new content counts
//! once two polls in a row have read it, because an editor may still be writing. SIGHUP makes both
//! polls happen at once.

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

/// The time between two polls of the file.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The time between the two polls that SIGHUP causes.
const HANGUP_DELAY: Duration = Duration::from_millis(100);

/// The config file, and how it is read.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    options: config::Options,
    /// The content that was last accepted or rejected.
    last_loaded: ContentHash,
}

/// The reason why the daemon has no config to start with.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The file is bad.
    Invalid(Problems),
    /// This host is short of something, such as descriptors. The file may be good.
    Exhausted(String),
}

impl ConfigFile {
    /// Loads the file for the first time.
    pub(crate) fn load(
        path: PathBuf,
        options: config::Options,
    ) -> Result<(Self, LoadedConfig), LoadError> {
        let content = config::read_file(&path);
        if let Err(ReadError::Exhausted(error)) = content {
            return Err(LoadError::Exhausted(error));
        }
        let last_loaded = ContentHash::new(&content);
        let loaded = config::parse_bytes(&path, content, &options).map_err(LoadError::Invalid)?;
        Ok((Self { path, options, last_loaded }, loaded))
    }
}

/// The config in force, and the problems of the file as it is now.
#[derive(Debug, Clone)]
struct State {
    spec: Arc<Spec>,
    loaded_at: Instant,
    /// A line for each problem; empty while the file is good.
    problems: Arc<[String]>,
}

impl State {
    fn new(spec: Arc<Spec>) -> Self {
        Self { spec, loaded_at: clock::now(), problems: Arc::default() }
    }
}

/// The daemon's access to the config in force.
#[derive(Clone)]
pub(crate) struct Handle {
    path: Arc<str>,
    state: watch::Receiver<State>,
    last_delivered: Arc<Spec>,
}

impl Handle {
    /// Waits for a good config that differs from the one before.
    pub(crate) async fn next(&mut self) -> Arc<Spec> {
        let last = self.last_delivered.clone();
        match self.state.wait_for(|state| !Arc::ptr_eq(&state.spec, &last)).await {
            Ok(state) => self.last_delivered = state.spec.clone(),
            // The watcher has ended, so no config will come.
            Err(_) => std::future::pending().await,
        }
        self.last_delivered.clone()
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Returns the problems of the file as it is now, a line each.
    pub(crate) fn problems(&self) -> Arc<[String]> {
        self.state.borrow().problems.clone()
    }

    /// Returns the time when the config in force was loaded.
    pub(crate) fn loaded_at(&self) -> Instant {
        self.state.borrow().loaded_at
    }
}

/// Watches the file from which `spec` was loaded, until all handles are dropped. Each `hangup`
/// polls it at once.
pub(crate) fn start(file: ConfigFile, spec: Spec, recorder: Recorder, hangup: Signal) -> Handle {
    let (watcher, handle) = ConfigWatcher::new(file, spec, recorder);
    tokio::spawn(watcher.run(hangup));
    handle
}

/// The content of the file as a hash, or the reason why it can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ContentHash {
    Content(u64),
    Unreadable(ReadError),
}

impl ContentHash {
    fn new(content: &Result<Vec<u8>, ReadError>) -> Self {
        match content {
            Ok(content) => {
                let mut hasher = DefaultHasher::new();
                hasher.write(content);
                ContentHash::Content(hasher.finish())
            }
            Err(error) => ContentHash::Unreadable(error.clone()),
        }
    }
}

/// The task that polls the file.
struct ConfigWatcher {
    file: ConfigFile,
    /// The content at the last poll.
    last_read: Option<ContentHash>,
    /// True after a poll that failed because this host was short of something.
    was_exhausted: bool,
    state: watch::Sender<State>,
    recorder: Recorder,
}

impl ConfigWatcher {
    fn new(file: ConfigFile, spec: Spec, recorder: Recorder) -> (Self, Handle) {
        let spec = Arc::new(spec);
        let path = file.path.display().to_string().into();
        let (state, state_out) = watch::channel(State::new(spec.clone()));
        let watcher = Self { file, last_read: None, was_exhausted: false, state, recorder };
        (watcher, Handle { path, state: state_out, last_delivered: spec })
    }

    async fn run(mut self, mut hangup: Signal) {
        let mut delay = POLL_INTERVAL;
        loop {
            let path = self.file.path.clone();
            // A file on a dead mount must not block the other tasks.
            let read = tokio::task::spawn_blocking(move || config::read_file(&path));
            if let Ok(content) = read.await {
                self.on_read(content);
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => delay = POLL_INTERVAL,
                Some(()) = hangup.recv() => {
                    info!("SIGHUP: reading the config");
                    delay = HANGUP_DELAY;
                }
                () = self.state.closed() => return,
            }
        }
    }

    /// Loads a content that two polls in a row have read, unless it was the last to be loaded.
    fn on_read(&mut self, content: Result<Vec<u8>, ReadError>) {
        if let Err(ReadError::Exhausted(error)) = &content {
            self.log_exhausted(error);
            return;
        }
        self.was_exhausted = false;
        let hash = ContentHash::new(&content);
        let last_read = self.last_read.replace(hash.clone());
        if last_read.as_ref() != Some(&hash) || self.file.last_loaded == hash {
            return;
        }
        self.file.last_loaded = hash;
        match config::parse_bytes(&self.file.path, content, &self.file.options) {
            Ok(loaded) => self.accept(loaded),
            Err(problems) => self.reject(&problems),
        }
    }

    /// Logs the first of several polls that failed because this host is short of something. They
    /// say nothing about the file.
    fn log_exhausted(&mut self, error: &str) {
        if !std::mem::replace(&mut self.was_exhausted, true) {
            warn!(
                "{}: {error}; the config in force stays, and the file is read again each second",
                self.file.path.display()
            );
        }
    }

    fn accept(&self, LoadedConfig { spec, warnings }: LoadedConfig) {
        let file = self.file.path.display();
        let (was_bad, is_same) = {
            let state = self.state.borrow();
            (!state.problems.is_empty(), *state.spec == spec)
        };
        warnings.to_string().lines().for_each(|line| warn!("{line}"));
        match (is_same, was_bad) {
            (true, false) => info!(%file, "the config file has changed, but not its meaning"),
            (true, true) => {
                info!(%file, "the config file is good again, and equals the config in force")
            }
            (false, _) => info!(%file, "the config file has changed"),
        }
        if was_bad {
            self.emit_event(Reason::ConfigGood, || format!("{file} is good again"));
        }
        self.state.send_modify(|state| {
            if is_same {
                state.problems = Arc::default();
            } else {
                *state = State::new(Arc::new(spec));
            }
        });
    }

    fn reject(&self, problems: &Problems) {
        let lines: Vec<String> = problems.to_string().lines().map(str::to_owned).collect();
        lines.iter().for_each(|line| error!("{line}"));
        let file = self.file.path.display();
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
        self.state.send_modify(|state| state.problems = lines.into());
    }

    fn emit_event(&self, reason: Reason, note: impl FnOnce() -> String) {
        self.recorder.event(|| Notice::new(Regarding::Daemon, reason, note(), clock::now()));
    }
}

#[cfg(test)]
impl ConfigFile {
    /// Returns a file that does not exist.
    pub(crate) fn missing() -> Self {
        let error = ReadError::Invalid("there is no such file".into());
        Self {
            path: "config.yaml".into(),
            options: config::Options::default(),
            last_loaded: ContentHash::Unreadable(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "databases: [{service: a, namespace: b, port: 1, \
                        addresses: [192.0.2.1], check: {tcp: {}}}]";

    fn other() -> String {
        GOOD.replace("192.0.2.1", "192.0.2.2")
    }

    /// Returns a watcher that has loaded `GOOD`, and is given each content by hand.
    fn watcher() -> (ConfigWatcher, Handle) {
        let last_loaded = ContentHash::new(&Ok(GOOD.into()));
        let options = config::Options::default();
        let spec = config::parse("a.yaml", GOOD, &options).expect("a good config").spec;
        let file = ConfigFile { path: "a.yaml".into(), options, last_loaded };
        ConfigWatcher::new(file, spec, Recorder::default())
    }

    /// Gives a content in two polls, which is enough to load it.
    fn poll_twice(watcher: &mut ConfigWatcher, text: &str) {
        (0..2).for_each(|_| watcher.on_read(Ok(text.into())));
    }

    fn address(handle: &Handle) -> String {
        handle.state.borrow().spec.databases[0].addresses[0].ip.to_string()
    }

    fn next(handle: &mut Handle) -> Option<Arc<Spec>> {
        futures::FutureExt::now_or_never(handle.next())
    }

    #[test]
    fn a_new_config_counts_once_two_polls_have_read_it() {
        let (mut watcher, mut handle) = watcher();
        assert!(next(&mut handle).is_none(), "the daemon started with it");
        watcher.on_read(Ok(other().into()));
        assert_eq!(address(&handle), "192.0.2.1");
        watcher.on_read(Ok(other().into()));
        assert_eq!(address(&handle), "192.0.2.2");
        assert_eq!(next(&mut handle).map(|spec| spec.databases.len()), Some(1));
        assert!(next(&mut handle).is_none());
    }

    #[test]
    fn another_text_with_the_same_meaning_is_not_delivered() {
        let (mut watcher, mut handle) = watcher();
        let loaded_at = handle.loaded_at();
        poll_twice(&mut watcher, &format!("# The databases.\n{GOOD}"));
        assert!(next(&mut handle).is_none());
        assert_eq!(handle.loaded_at(), loaded_at);
    }

    #[test]
    fn a_bad_file_changes_nothing_but_the_problems() {
        let (mut watcher, mut handle) = watcher();
        poll_twice(&mut watcher, &GOOD.replace("port: 1", "port: 0"));
        let problems = handle.problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("a.yaml:1:46: databases[0].port: "), "{problems:?}");
        let missing = ReadError::Invalid("there is no such file".into());
        (0..2).for_each(|_| watcher.on_read(Err(missing.clone())));
        assert_eq!(*handle.problems(), ["a.yaml: there is no such file".to_owned()]);
        poll_twice(&mut watcher, "");
        assert!(handle.problems()[0].starts_with("a.yaml: is empty"));
        assert!(next(&mut handle).is_none());
        poll_twice(&mut watcher, GOOD);
        assert!(handle.problems().is_empty() && next(&mut handle).is_none());
        poll_twice(&mut watcher, &other());
        assert!(next(&mut handle).is_some());
    }

    #[test]
    fn a_shortage_of_descriptors_is_not_a_problem_of_the_file() {
        let (mut watcher, mut handle) = watcher();
        let exhausted = ReadError::Exhausted("too many open files".into());
        (0..3).for_each(|_| watcher.on_read(Err(exhausted.clone())));
        assert!(handle.problems().is_empty() && next(&mut handle).is_none());
        // It does not separate two polls that read the same content.
        watcher.on_read(Ok(other().into()));
        watcher.on_read(Err(exhausted));
        watcher.on_read(Ok(other().into()));
        assert!(next(&mut handle).is_some());
    }

    #[test]
    fn a_change_between_the_start_and_the_first_poll_is_delivered() {
        let (mut watcher, mut handle) = watcher();
        assert_eq!(watcher.last_read, None);
        poll_twice(&mut watcher, &other());
        assert!(next(&mut handle).is_some());
    }
}
