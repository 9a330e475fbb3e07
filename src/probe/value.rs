//! Values of the config that may be secrets: read again at each use, from the config, a file or the
//! environment.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::phase::{Phase, ProbeResult, os_error_text};
use crate::config::ValueSource;

/// The largest file that is read. No key, password or request is larger, so a larger file is a
/// mistake.
const MAX_FILE_SIZE: u64 = 1 << 20;

/// Returns the bytes of a value that is not in a file. None if it is in one, or if the variable is
/// not set.
pub(crate) fn bytes_at_hand(value: &ValueSource) -> Option<Vec<u8>> {
    match value {
        ValueSource::Literal(text) => Some(text.as_bytes().to_vec()),
        ValueSource::Bytes(bytes) => Some(bytes.clone()),
        ValueSource::FromEnv(name) => std::env::var_os(name).map(OsStringExt::into_vec),
        ValueSource::File(_) => None,
    }
}

/// Reads the current bytes of a value, unchanged. A failure is inconclusive, in `phase`.
pub(crate) async fn read(value: &ValueSource, phase: Phase) -> ProbeResult<Vec<u8>> {
    if let Some(bytes) = bytes_at_hand(value) {
        return Ok(bytes);
    }
    match value {
        ValueSource::Literal(_) | ValueSource::Bytes(_) => Ok(Vec::new()),
        ValueSource::FromEnv(name) => {
            Err(phase.inconclusive(format_args!("environment variable {name} is not set")))
        }
        ValueSource::File(path) => {
            let path = path.clone();
            blocking(phase, move || {
                read_file(&path).map_err(|why| {
                    phase.inconclusive(format_args!("cannot read {}: {why}", path.display()))
                })
            })
            .await?
        }
    }
}

/// Reads a value like [`read`], without the line end that editors and `echo` leave in a file.
pub(crate) async fn read_trimmed(value: &ValueSource, phase: Phase) -> ProbeResult<Vec<u8>> {
    let mut bytes = read(value, phase).await?;
    if matches!(value, ValueSource::File(_)) {
        trim_line_end(&mut bytes);
    }
    Ok(bytes)
}

/// Removes the line end that editors and `echo` leave in a file.
pub(crate) fn trim_line_end(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
}

/// Runs work that may block on a disk on a thread where it delays no other probe.
pub(crate) async fn blocking<T: Send + 'static>(
    phase: Phase,
    work: impl FnOnce() -> T + Send + 'static,
) -> ProbeResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(_) => Err(phase.inconclusive("cancelled because the daemon is shutting down")),
    }
}

/// Reads a regular file of at most 1 MiB. The error is a reason for people.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let reason = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => os_error_text(&error),
    };
    let kind = fs::metadata(path).map_err(reason)?;
    if kind.is_dir() {
        return Err("it is a directory".into());
    }
    // Opening a pipe would block the thread until a process writes to it.
    if !kind.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(reason)?
        .take(MAX_FILE_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(reason)?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        return Err("it is larger than 1 MiB".into());
    }
    Ok(bytes)
}

/// The identity of a file's content, without reading it: it differs once the file has been replaced
/// or rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileStamp {
    path: PathBuf,
    /// Device, inode, size, and the times of the last change of content and of inode. `None` if
    /// there is no file.
    stat: Option<[i64; 7]>,
}

impl FileStamp {
    pub(crate) fn new(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let stat = fs::metadata(path).ok().map(|m| {
            [
                m.dev() as i64,
                m.ino() as i64,
                m.size() as i64,
                m.mtime(),
                m.mtime_nsec(),
                m.ctime(),
                m.ctime_nsec(),
            ]
        });
        Self { path: path.to_owned(), stat }
    }
}
