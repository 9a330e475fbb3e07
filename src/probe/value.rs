//! Values of the config that may be secrets: read anew at each use, and told apart only by where they come from.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::phase::{Phase, ProbeResult, os_error_text};
use crate::config::ValueSource;

/// No key, password or request is larger; a file that is one is a mistake.
const MAX_FILE_SIZE: u64 = 1 << 20;

/// What a value holds now, byte for byte. `phase` is what it is wanted for.
pub(crate) async fn read(value: &ValueSource, phase: Phase) -> ProbeResult<Vec<u8>> {
    match value {
        ValueSource::Literal(text) => Ok(text.as_bytes().to_vec()),
        ValueSource::Bytes(bytes) => Ok(bytes.clone()),
        ValueSource::FromEnv(name) => match std::env::var_os(name) {
            Some(text) => Ok(text.into_vec()),
            None => Err(phase.inconclusive(format_args!("environment variable {name} is not set"))),
        },
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

/// As [`read`], less the line end that editors and `echo` leave in a file of one word.
pub(crate) async fn read_trimmed(value: &ValueSource, phase: Phase) -> ProbeResult<Vec<u8>> {
    let mut bytes = read(value, phase).await?;
    if matches!(value, ValueSource::File(_)) && bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}

/// Runs what may block on a disk away from the threads that other targets' checks run on.
pub(crate) async fn blocking<T: Send + 'static>(
    phase: Phase,
    work: impl FnOnce() -> T + Send + 'static,
) -> ProbeResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(_) => Err(phase.inconclusive("stopped, as the daemon stops")),
    }
}

/// A file's bytes, or why it can't be read, in words.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let words = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => os_error_text(&error),
    };
    let kind = fs::metadata(path).map_err(words)?;
    if kind.is_dir() {
        return Err("it is a directory".into());
    }
    // Opening a pipe would wait for whoever writes to it, and hold a thread for ever.
    if !kind.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(words)?
        .take(MAX_FILE_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(words)?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        return Err("it is larger than 1 MiB".into());
    }
    Ok(bytes)
}

/// What tells a file that was replaced or rewritten from the one read before, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileStamp {
    path: PathBuf,
    /// Device, inode, size, and the times of the last change of content and of inode. None while there is no file.
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
