//! Gives memory back that only the start has needed: pages of the program's own code.
//!
//! What runs once, such as reading the config, stays mapped and counts as memory of the process until somebody unmaps it: half of
//! the code. What is still needed comes back with its next use, from the page cache.

use std::fs;
use std::io;
use std::time::Duration;

use tracing::debug;

/// How long after the start: by then all targets have been tried, and all Services published.
const STARTED: Duration = Duration::from_secs(10);

/// Gives the code of the start back once that is over.
pub async fn shrink_after_start() {
    tokio::time::sleep(STARTED).await;
    match give_back_code() {
        Ok(bytes) => debug!(bytes, "code that is not running was unmapped"),
        Err(error) => debug!(%error, "code that is not running can't be unmapped"),
    }
}

/// Unmaps the pages of all code. Returns how many bytes of address space that were.
fn give_back_code() -> io::Result<usize> {
    let mut bytes = 0;
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let Some((from, until)) = code(line) else { continue };
        // SAFETY: nobody ever writes into these pages, so that what comes back is what was there.
        let done =
            unsafe { libc::madvise(from as *mut libc::c_void, until - from, libc::MADV_DONTNEED) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        bytes += until - from;
    }
    Ok(bytes)
}

/// The span of a line of `/proc/self/maps`, if it is code from a file.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (from, until) = fields.next()?.split_once('-')?;
    let is_code = fields.next()? == "r-xp" && fields.next_back()?.starts_with('/');
    let number = |hex| usize::from_str_radix(hex, 16).ok();
    Some((number(from)?, number(until)?)).filter(|_| is_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_from_a_file_is_given_back() {
        let code_of = |rest: &str| code(&format!("1000-3000 {rest}"));
        assert_eq!(
            code_of("r-xp 00339000 fe:00 1234    /external-endpoints"),
            Some((0x1000, 0x3000))
        );
        for rest in [
            "r--p 00000000 fe:00 1234    /external-endpoints",
            "rw-p 00f4d000 fe:00 1234    /external-endpoints",
            "r-xp 00000000 00:00 0       [vdso]",
            "rwxp 00000000 00:00 0",
        ] {
            assert_eq!(code_of(rest), None, "{rest}");
        }
    }

    #[test]
    fn less_is_mapped_and_all_runs_on() {
        let mapped = || -> usize {
            let status = fs::read_to_string("/proc/self/status").expect("a status");
            let line =
                status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("a line");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        let before = mapped();
        assert!(give_back_code().expect("it is given back") > 1 << 20);
        let after = mapped();
        assert!(after < before, "{before} kB before, {after} kB after");
    }
}
