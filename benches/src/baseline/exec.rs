//! The baseline of exec checks: posix_spawn, then wait, one after the other.

#![allow(unsafe_code, reason = "posix_spawn itself is measured")]

use std::ffi::{CStr, c_char};
use std::io;
use std::ptr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Schedule;
use crate::machine;

const PROGRAM: &CStr = c"/bin/true";

pub(super) fn run(rota: &mut Schedule) -> Result<()> {
    loop {
        let now = machine::now();
        while rota.take(now).is_some() {
            spawn_and_wait()?;
        }
        thread::sleep(Duration::from_nanos(rota.next_at().saturating_sub(machine::now())));
    }
}

fn spawn_and_wait() -> Result<()> {
    let arguments: [*mut c_char; 2] = [PROGRAM.as_ptr().cast_mut(), ptr::null_mut()];
    let environment: [*mut c_char; 1] = [ptr::null_mut()];
    let mut pid = 0;
    let mut status = 0;
    // SAFETY: all pointers lead to values that outlive the calls, and both lists end with a null.
    unsafe {
        let problem = libc::posix_spawn(
            &raw mut pid,
            PROGRAM.as_ptr(),
            ptr::null(),
            ptr::null(),
            arguments.as_ptr(),
            environment.as_ptr(),
        );
        if problem != 0 {
            bail!("posix_spawn: {}", io::Error::from_raw_os_error(problem));
        }
        if libc::waitpid(pid, &raw mut status, 0) != pid {
            bail!("waitpid: {}", io::Error::last_os_error());
        }
    }
    if status != 0 {
        bail!("{PROGRAM:?} ended with status {status}");
    }
    Ok(())
}
