//! From a file to a checked config, or to everything that is wrong with it.

use std::fmt;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::problem::{Collector, Problems, Span};
use super::read::{Field, Reader};
use super::{LoadedConfig, Options, compile, raw, tree};

/// More than any list of databases needs, and little enough to be read in an instant.
const MAX_FILE_SIZE: u64 = 10 * 1024 * 1024;

/// Reads a config file.
pub fn load(path: &Path, options: &Options) -> Result<LoadedConfig, Problems> {
    parse_bytes(path, read_file(path), options)
}

/// Makes a config of what was read from a file.
pub fn parse_bytes(
    path: &Path,
    content: Result<Vec<u8>, ReadError>,
    options: &Options,
) -> Result<LoadedConfig, Problems> {
    let name = path.display().to_string();
    let bytes = content.map_err(|error| Problems::whole_file(&name, error.to_string()))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(&name, text, options),
        Err(error) => Err(not_utf8(&name, &bytes, error.valid_up_to())),
    }
}

/// Why the content of a config file can't be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// A mistake in the path or the file.
    Invalid(String),
    /// Something that this process or host is short of, such as descriptors. The file may be good.
    Exhausted(String),
}

impl ReadError {
    fn new(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => {
                Self::Exhausted(format!("can't be read now: {error}; raise `ulimit -n`"))
            }
            Some(libc::ENOMEM | libc::EAGAIN) => {
                Self::Exhausted(format!("can't be read now: {error}; give the process more memory"))
            }
            _ => Self::Invalid(match error.kind() {
                ErrorKind::NotFound => "there is no such file; give the path of the config".into(),
                ErrorKind::IsADirectory => "is a directory; give the path of a file".into(),
                ErrorKind::PermissionDenied => {
                    "may not be read; give this user the right to read it".into()
                }
                _ => format!("can't be read: {error}; give the path of a file that can"),
            }),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Invalid(message) | Self::Exhausted(message)) = self;
        f.write_str(message)
    }
}

/// Reads the content of a config file.
pub fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes);
    match read {
        Ok(_) if bytes.len() as u64 > MAX_FILE_SIZE => Err(ReadError::Invalid(
            "is larger than 10 MiB; write the config of fewer databases, or begin another".into(),
        )),
        Ok(_) => Ok(bytes),
        Err(error) => Err(ReadError::new(&error)),
    }
}

/// Opens a config file without waiting. Opening a FIFO as usual waits for its writer, and would end all reloads.
fn open(path: &Path) -> Result<File, ReadError> {
    let failed = |error: io::Error| ReadError::new(&error);
    if is_inherited(path) {
        return File::open(path).map_err(failed);
    }
    // Before it is opened, for opening a device may do something to it.
    refuse_special(fs::metadata(path).map_err(failed)?.file_type())?;
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    // Once more, as another file may have taken the place meanwhile.
    refuse_special(file.metadata().map_err(failed)?.file_type())?;
    Ok(file)
}

/// Whether the path is that of a file which whoever started the process opened for it, as a shell does for `<(…)`.
fn is_inherited(path: &Path) -> bool {
    path == Path::new("/dev/stdin")
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
}

fn refuse_special(kind: FileType) -> Result<(), ReadError> {
    let what = match kind {
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => return Ok(()),
    };
    Err(ReadError::Invalid(format!("is {what}; give the path of a file")))
}

fn not_utf8(name: &str, bytes: &[u8], valid: usize) -> Problems {
    let mut problems = Collector::default();
    let before = String::from_utf8_lossy(&bytes[..valid]);
    let line = before.split('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let span = Span { line: line as u32, column: column as u32, ..Span::default() };
    problems.error(span, "", "from here on this is not UTF-8; save the file as UTF-8");
    problems.into_problems(name, "").0
}

/// Reads a config that is in memory already; `file_name` is what its problems call it.
pub fn parse(file_name: &str, text: &str, options: &Options) -> Result<LoadedConfig, Problems> {
    // A file saved on Windows may begin with a mark that is no part of the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(message) = empty_file_message(text) {
        return Err(Problems::whole_file(file_name, message));
    }
    let mut problems = Collector::default();
    let spec = tree::parse(text, &mut problems).and_then(|root| {
        let config = Reader::new(&mut problems).field::<raw::Config>(&root, root.span);
        let Field::Given(config) = config else { return None };
        compile::compile(&config.value, options, &mut problems)
    });
    let (errors, warnings) = problems.into_problems(file_name, text);
    match spec {
        Some(spec) if errors.is_empty() => Ok(LoadedConfig { spec, warnings }),
        _ => Err(errors),
    }
}

fn empty_file_message(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let what = match lines.next() {
        None => "is empty",
        Some(first) if first.starts_with('#') && lines.all(|line| line.starts_with('#')) => {
            "holds only comments"
        }
        Some(_) => return None,
    };
    Some(format!(
        "{what}; list the databases, as in `databases: [{{service: mysql, port: 3306, …}}]`"
    ))
}
