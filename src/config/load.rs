//! Loads a config file: reads its bytes, and makes a checked config of them or a list of all that
//! is wrong.

use std::fmt;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::compile::{self, Options};
use super::language::reader::Reader;
use super::language::spanned::Field;
use super::problem::{Collector, Problems, Reported, Span};
use super::records::Config;
use super::spec::Spec;
use super::yaml;

/// The largest config file, in bytes. No list of databases needs more, and this much is read in an
/// instant.
const MAX_FILE_SIZE: u64 = 10 * 1024 * 1024;

/// A config that can be used.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
    /// The checked config.
    pub spec: Spec,
    /// Settings that are allowed but probably not meant.
    pub warnings: Problems,
}

/// The reason why the content of a config file can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// The path or the file is wrong.
    Invalid(String),
    /// The file is larger than 10 MiB.
    TooLarge,
    /// This process or host lacks a resource, such as file descriptors. The file may be good.
    Exhausted(String),
}

impl ReadError {
    fn new(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => {
                Self::Exhausted(format!("can't be read now: {error}; raise `ulimit -n`"))
            }
            Some(libc::ENOMEM) => {
                Self::Exhausted(format!("can't be read now: {error}; give the process more memory"))
            }
            // A file whose reader would have to wait, such as /proc/kmsg.
            Some(libc::EAGAIN) => Self::Exhausted(
                "can't be read without waiting; give the path of a file that holds all of its text"
                    .to_owned(),
            ),
            _ => Self::Invalid(match error.kind() {
                ErrorKind::NotFound => "there is no such file; give the path of the config".into(),
                ErrorKind::IsADirectory => "is a directory; give the path of a file".into(),
                ErrorKind::PermissionDenied => {
                    "may not be read; give this user the right to read it".into()
                }
                _ => format!("can't be read: {error}; give the path of a readable file"),
            }),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(message) | Self::Exhausted(message) => f.write_str(message),
            Self::TooLarge => f.write_str(
                "is larger than 10 MiB; write the config of fewer databases, or begin another",
            ),
        }
    }
}

/// Reads and checks a config file.
pub fn load(path: &Path, options: &Options) -> Result<LoadedConfig, Problems> {
    parse_bytes(path, read_file(path), options)
}

/// Reads the content of a config file.
pub fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    match open(path)?.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 > MAX_FILE_SIZE => Err(ReadError::TooLarge),
        Ok(_) => Ok(bytes),
        Err(error) => Err(ReadError::new(&error)),
    }
}

/// Opens a config file without waiting. A plain open of a FIFO waits for its writer, which would
/// end all reloads.
fn open(path: &Path) -> Result<File, ReadError> {
    let failed = |error: io::Error| ReadError::new(&error);
    if is_inherited(path) {
        return File::open(path).map_err(failed);
    }
    // This comes before the open, because opening a device may change its state.
    reject_special(fs::metadata(path).map_err(failed)?.file_type())?;
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    // Another file may have taken the path in the meantime.
    reject_special(file.metadata().map_err(failed)?.file_type())?;
    Ok(file)
}

/// Returns true if the parent of this process opened the file for it, as a shell does for `<(…)`.
pub(crate) fn is_inherited(path: &Path) -> bool {
    path == Path::new("/dev/stdin")
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
}

fn reject_special(file_type: FileType) -> Result<(), ReadError> {
    let what = match file_type {
        _ if file_type.is_fifo() => "a FIFO",
        _ if file_type.is_socket() => "a socket",
        _ if file_type.is_char_device() || file_type.is_block_device() => "a device",
        _ => return Ok(()),
    };
    Err(ReadError::Invalid(format!("is {what}; give the path of a file")))
}

/// Makes a checked config of the content of a file.
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

fn not_utf8(name: &str, bytes: &[u8], valid: usize) -> Problems {
    let mut problems = Collector::default();
    let before = String::from_utf8_lossy(&bytes[..valid]);
    let line = before.split('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let span = Span { line: line as u32, column: column as u32, ..Span::default() };
    problems.error(span, "", "from here on this is not UTF-8; save the file as UTF-8");
    problems.into_problems(name, "").0
}

/// Makes a checked config of a text. Its problems call the file `file_name`.
pub fn parse(file_name: &str, text: &str, options: &Options) -> Result<LoadedConfig, Problems> {
    // A file from Windows may begin with a byte order mark, which is not part of the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(message) = empty_file_message(text) {
        return Err(Problems::whole_file(file_name, message));
    }
    let mut problems = Collector::default();
    let spec = parse_spec(text, options, &mut problems);
    let (errors, warnings) = problems.into_problems(file_name, text);
    match spec {
        Ok(spec) if errors.is_empty() => Ok(LoadedConfig { spec, warnings }),
        _ => Err(errors),
    }
}

fn parse_spec(text: &str, options: &Options, problems: &mut Collector) -> Result<Spec, Reported> {
    let root = yaml::tree::parse(text, problems)?;
    if root.is_config_map() {
        let message = "this is a ConfigMap; give the path of the file that it becomes where it is \
                       mounted (`validate` also reads a ConfigMap)";
        return Err(problems.error(root.span, "", message));
    }
    let config: Field<Config> = Reader::new(problems).field(&root, root.span);
    compile::compile(config.value().ok_or(Reported)?, options, problems)
}

/// Returns the message for a file without any content.
fn empty_file_message(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let what = match lines.next() {
        None => "is empty",
        Some(first) if first.starts_with('#') && lines.all(|line| line.starts_with('#')) => {
            "has only comments"
        }
        Some(_) => return None,
    };
    Some(format!(
        "{what}; list the databases, as in `databases: [{{service: mysql, port: 3306, …}}]`"
    ))
}
