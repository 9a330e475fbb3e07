//! User and password of a check, kept between its probes.
//!
//! A check of thousands of targets can't read a file for each probe. So the content of a file is
//! kept, and the file is looked at again once a second at most, in a task and not on the thread of
//! the monitor. After a refusal it is looked at before the next probe.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::phase::{Phase, ProbeResult};
use super::value::{self, FileStamp};
use crate::clock;
use crate::config::{MAX_PASSWORD_LENGTH, MAX_USER_LENGTH, ValueSource};

/// The time for which a file counts as unchanged without a look at it.
const MAX_AGE: Duration = Duration::from_secs(1);

/// User and password of one check. Neither is shown by `Debug`.
#[derive(Clone)]
pub(crate) struct Credentials {
    user: Option<Arc<KeptValue>>,
    password: Option<Arc<KeptValue>>,
}

/// A value that is kept between probes.
struct KeptValue {
    source: ValueSource,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: Option<Arc<[u8]>>,
    /// The file that the bytes come from.
    stamp: Option<FileStamp>,
    /// The time of the last look at the file. None if the next probe must look.
    checked_at: Option<Instant>,
}

/// The values, so that all targets with the same one share it.
static VALUES: LazyLock<Mutex<HashMap<ValueSource, Weak<KeptValue>>>> =
    LazyLock::new(Mutex::default);

impl Credentials {
    pub(crate) fn new(user: Option<&ValueSource>, password: Option<&ValueSource>) -> Self {
        Self { user: user.map(KeptValue::shared), password: password.map(KeptValue::shared) }
    }

    /// Returns whether both values are at hand and fresh.
    ///
    /// One probe in each second finds that a file's value is not fresh, and looks at the file.
    pub(crate) fn are_ready(&self, now: Instant) -> bool {
        self.values().all(|value| value.is_fresh(now))
    }

    /// Returns whether a value is in a file or missing.
    pub(crate) fn need_reading(&self) -> bool {
        self.values().any(|value| value.is_in_file() || value.lock().bytes.is_none())
    }

    /// Reads what is not at hand, and files that have changed.
    pub(crate) async fn prepare(&self) -> ProbeResult<()> {
        for value in self.values() {
            value.refresh().await?;
        }
        Ok(())
    }

    pub(crate) fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Returns the user. A server would close without a word when it gets one that is too long,
    /// and look dead.
    pub(crate) fn user(&self) -> ProbeResult<Option<Arc<[u8]>>> {
        let user = self.user.as_ref().map(|value| value.bytes()).transpose()?;
        within(user, MAX_USER_LENGTH, "the user is over 1 KiB")
    }

    /// Returns the user for a protocol in which a NUL ends it.
    pub(crate) fn user_without_nul(&self) -> ProbeResult<Option<Arc<[u8]>>> {
        match self.user()? {
            Some(user) if user.contains(&0) => {
                Err(Phase::Files.inconclusive("the user has a NUL character"))
            }
            Some(user) if user.is_empty() => Err(Phase::Files.inconclusive("the user is empty")),
            user => Ok(user),
        }
    }

    pub(crate) fn password(&self) -> ProbeResult<Option<Arc<[u8]>>> {
        let password = self.password.as_ref().map(|value| value.bytes()).transpose()?;
        within(password, MAX_PASSWORD_LENGTH, "the password is over 8 KiB")
    }

    /// Makes the next probe look at the files, because the server has refused what they held.
    pub(crate) fn expire(&self) {
        for value in self.values() {
            value.lock().checked_at = None;
        }
    }

    fn values(&self) -> impl Iterator<Item = &Arc<KeptValue>> {
        self.user.iter().chain(&self.password)
    }
}

fn within(value: Option<Arc<[u8]>>, most: usize, problem: &str) -> ProbeResult<Option<Arc<[u8]>>> {
    match value {
        Some(value) if value.len() > most => Err(Phase::Files.inconclusive(problem)),
        value => Ok(value),
    }
}

impl KeptValue {
    fn shared(source: &ValueSource) -> Arc<Self> {
        let mut values = VALUES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = values.get(source).and_then(Weak::upgrade) {
            return value;
        }
        let bytes = value::bytes_at_hand(source).map(Into::into);
        let state = Mutex::new(State { bytes, ..State::default() });
        let value = Arc::new(Self { source: source.clone(), state });
        values.insert(source.clone(), Arc::downgrade(&value));
        value
    }

    fn is_in_file(&self) -> bool {
        matches!(self.source, ValueSource::File(_))
    }

    fn is_fresh(&self, now: Instant) -> bool {
        let mut state = self.lock();
        if state.bytes.is_none() {
            return false;
        }
        if !self.is_in_file() {
            return true;
        }
        let is_fresh = state
            .checked_at
            .is_some_and(|checked_at| now.saturating_duration_since(checked_at) < MAX_AGE);
        if !is_fresh {
            // The probe that asks now looks at the file. The others use what is kept meanwhile.
            state.checked_at = Some(now);
        }
        is_fresh
    }

    async fn refresh(self: &Arc<Self>) -> ProbeResult<()> {
        let ValueSource::File(path) = &self.source else {
            // It is at hand, or reading it fails.
            return value::read(&self.source, Phase::Files).await.map(drop);
        };
        let (value, path) = (self.clone(), path.clone());
        value::blocking(Phase::Files, move || {
            // Before the file is read, so that the next look notices a change in between.
            let stamp = Some(FileStamp::new(&path));
            if value.lock().bytes.is_some() && value.lock().stamp == stamp {
                value.lock().checked_at = Some(clock::now());
                return Ok(());
            }
            let mut bytes = value::read_file(&path).map_err(|why| {
                value.lock().checked_at = None;
                Phase::Files.inconclusive(format_args!("cannot read {}: {why}", path.display()))
            })?;
            value::trim_line_end(&mut bytes);
            *value.lock() =
                State { bytes: Some(bytes.into()), stamp, checked_at: Some(clock::now()) };
            Ok(())
        })
        .await?
    }

    fn bytes(&self) -> ProbeResult<Arc<[u8]>> {
        self.lock().bytes.clone().ok_or_else(|| Phase::Files.inconclusive("not read yet"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KeptValue {
    fn drop(&mut self) {
        let mut values = VALUES.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have replaced the entry meanwhile.
        if values.get(&self.source).is_some_and(|value| value.strong_count() == 0) {
            values.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Verdict;

    #[tokio::test]
    async fn a_file_is_looked_at_once_a_second_and_after_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let source = ValueSource::File(path.clone());
        let (one, other) =
            (Credentials::new(None, Some(&source)), Credentials::new(Some(&source), None));
        assert!(!one.are_ready(clock::now()));
        assert!(one.prepare().await.is_err());
        std::fs::write(&path, "first\r\n").unwrap();
        one.prepare().await.unwrap();
        let now = clock::now();
        assert!(one.are_ready(now) && other.are_ready(now), "the file is shared");
        assert_eq!(&*other.user().unwrap().unwrap(), b"first");
        let later = now + 2 * MAX_AGE;
        assert!(!one.are_ready(later) && other.are_ready(later), "one of them looks");

        std::fs::write(&path, "second").unwrap();
        assert!(one.are_ready(later));
        one.expire();
        assert!(!one.are_ready(later));
        one.prepare().await.unwrap();
        assert_eq!(&*one.password().unwrap().unwrap(), b"second");

        std::fs::remove_file(&path).unwrap();
        assert!(one.prepare().await.is_err());
        assert!(!other.are_ready(clock::now()), "a file that is gone is looked at by each probe");
    }

    #[tokio::test]
    async fn a_text_is_always_at_hand_and_a_missing_variable_never() {
        let credentials = Credentials::new(None, Some(&ValueSource::Literal("a\n".into())));
        assert!(credentials.are_ready(clock::now()));
        credentials.expire();
        assert!(credentials.are_ready(clock::now()));
        assert_eq!(&*credentials.password().unwrap().unwrap(), b"a\n");
        assert!(Credentials::new(None, None).are_ready(clock::now()));

        let unset = ValueSource::FromEnv("EXTERNAL_ENDPOINTS_UNSET".into());
        let unset = Credentials::new(None, Some(&unset));
        assert!(!unset.are_ready(clock::now()));
        let reason = "files: environment variable EXTERNAL_ENDPOINTS_UNSET is not set";
        assert_eq!(unset.prepare().await, Err(Verdict::Inconclusive(reason.into())));
    }

    #[test]
    fn equal_values_are_kept_once_and_only_while_used() {
        let source = |text: &str| ValueSource::Literal(format!("kept once: {text}"));
        let kept = |source| VALUES.lock().unwrap().contains_key(source);
        let (one, other) = (source("one"), source("other"));
        let first = Credentials::new(Some(&one), Some(&other));
        let second = Credentials::new(Some(&one), None);
        let value = |credentials: &Credentials| credentials.user.clone().unwrap();
        assert!(Arc::ptr_eq(&value(&first), &value(&second)));
        drop(first);
        assert!(kept(&one) && !kept(&other));
        drop(second);
        assert!(!kept(&one));
    }

    #[test]
    fn a_user_or_password_that_no_server_has_is_inconclusive() {
        let of = |user: usize, password: usize| {
            let value = |length| ValueSource::Literal("x".repeat(length));
            let credentials = Credentials::new(Some(&value(user)), Some(&value(password)));
            credentials.user_without_nul().and_then(|_| credentials.password()).map(drop)
        };
        let refused = |why: &str| Err(Verdict::Inconclusive(format!("files: {why}")));
        assert_eq!(of(1, 0), Ok(()));
        assert_eq!(of(MAX_USER_LENGTH, MAX_PASSWORD_LENGTH), Ok(()));
        assert_eq!(of(MAX_USER_LENGTH + 1, 1), refused("the user is over 1 KiB"));
        assert_eq!(of(1, MAX_PASSWORD_LENGTH + 1), refused("the password is over 8 KiB"));
        assert_eq!(of(0, 1), refused("the user is empty"));
    }
}
