//! The phases of a probe, and the verdict on an error or a deadline in each of them.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::health::Verdict;

/// The result of a step of a probe. The error is the verdict that ends the probe, and is never a
/// pass: a probe passes by reaching its end.
pub(crate) type ProbeResult<T> = Result<T, Verdict>;

/// Returns the verdict of a probe from the result of its last step.
pub(crate) fn to_verdict(result: ProbeResult<()>) -> Verdict {
    result.err().unwrap_or(Verdict::Pass)
}

/// The phase of a probe, and its verdict once that is known. Clones share the state.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    phase: Phase,
    /// Known while the probe only closes its conversation in an orderly way.
    verdict: Option<ProbeResult<()>>,
}

impl Progress {
    pub(crate) fn enter(&self, phase: Phase) {
        self.state().phase = phase;
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Fixes the verdict. A later deadline does not change it.
    pub(crate) fn decide(&self, verdict: &ProbeResult<()>) {
        let mut state = self.state();
        if state.verdict.is_none() {
            state.verdict = Some(verdict.clone());
        }
    }

    /// Returns the result if the deadline comes now.
    pub(crate) fn timed_out(&self, timeout: Duration) -> ProbeResult<()> {
        let state = self.state();
        state.verdict.clone().unwrap_or_else(|| state.phase.timed_out(timeout))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of a probe that is under way. Each verdict begins with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Files are read. A failure is this host's.
    #[default]
    Files,
    /// The command is looked up and started. A failure is this host's.
    Start,
    Connect,
    Tls,
    /// TLS is up and the check is done. Only a late refusal of the server can still come.
    Settle,
    Send,
    Expect,
    /// Some of the answer has come, but not the expected text.
    ExpectRest,
    Http,
    Body,
    Exec,
    /// PostgreSQL has been asked for a session.
    Startup,
    /// MySQL speaks first.
    Greeting,
    /// The login of a database's own protocol. No text of the server is shown in this phase.
    Auth,
    /// The keys of a login are to be computed, and the next probe does it.
    Keys,
    /// Redis has been asked whether it answers at all.
    Ping,
    /// MongoDB has been asked for its state.
    Hello,
    /// A service has been asked for its health over gRPC.
    Grpc,
    /// The server has been asked for its role.
    Role,
    /// The replica has been asked how far it is behind.
    Lag,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Files => "files",
            Phase::Connect => "connect",
            Phase::Tls | Phase::Settle => "tls",
            Phase::Send => "send",
            Phase::Expect | Phase::ExpectRest => "expect",
            Phase::Http | Phase::Body => "http",
            Phase::Start | Phase::Exec => "exec",
            Phase::Startup => "startup",
            Phase::Greeting => "greeting",
            Phase::Auth => "auth",
            Phase::Keys => "keys",
            Phase::Ping => "ping",
            Phase::Hello => "hello",
            Phase::Grpc => "grpc",
            Phase::Role => "role",
            Phase::Lag => "lag",
        })
    }
}

impl Phase {
    pub(crate) fn fail(self, what: impl fmt::Display) -> Verdict {
        Verdict::Fail(format!("{self}: {what}"))
    }

    pub(crate) fn inconclusive(self, what: impl fmt::Display) -> Verdict {
        Verdict::Inconclusive(format!("{self}: {what}"))
    }

    /// Returns the verdict on a connection that ended early: `how` is "closed" or "reset".
    pub(crate) fn connection_ended(self, how: &str) -> Verdict {
        let when = if self == Phase::Tls { " in the handshake" } else { "" };
        self.fail(format_args!("connection {how}{when}"))
    }

    /// Returns the result if the deadline comes in this phase.
    pub(crate) fn timed_out(self, timeout: Duration) -> ProbeResult<()> {
        let timeout = humantime::format_duration(timeout);
        Err(match self {
            Phase::Files => self.inconclusive(format_args!("not read in {timeout}")),
            Phase::Start => self.inconclusive(format_args!("not started in {timeout}")),
            Phase::Settle => return Ok(()),
            Phase::ExpectRest => {
                self.fail(format_args!("the expected text did not arrive in {timeout}"))
            }
            Phase::Exec => self.fail(format_args!("the command did not exit in {timeout}")),
            Phase::Body => self.fail(format_args!("the body did not end in {timeout}")),
            _ => self.fail(format_args!("no answer in {timeout}")),
        })
    }

    /// Returns the verdict on an I/O error that may have come from outside this host: any but an
    /// error that `socket` or `connect` returns at once.
    pub(crate) fn io_error(self, error: &io::Error) -> Verdict {
        let Some(errno) = Errno::from_io_error(error) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero => {
                    self.connection_ended("closed")
                }
                _ => self.fail(error),
            };
        };
        if let Some(shortage) = shortage(errno) {
            return self.inconclusive(shortage);
        }
        match errno {
            Errno::CONNREFUSED => self.fail("refused"),
            Errno::CONNRESET if self == Phase::Connect => self.fail("reset"),
            Errno::CONNRESET => self.connection_ended("reset"),
            Errno::PIPE => self.connection_ended("closed"),
            // A router has reported it, or the address is of this host's subnet and has no owner.
            Errno::HOSTUNREACH => self.fail("host unreachable"),
            // Linux translates ICMP to these: `icmp_err_convert` for IPv4, `icmpv6_err_convert` for
            // IPv6.
            Errno::NETUNREACH => self.fail("network unreachable (reported by a router)"),
            Errno::ACCESS | Errno::PERM => {
                self.fail("administratively prohibited (reported by a router)")
            }
            Errno::NOPROTOOPT => self.fail("protocol unreachable (reported by a router)"),
            Errno::HOSTDOWN => self.fail("host unknown (reported by a router)"),
            Errno::NONET => self.fail("this host is isolated (reported by a router)"),
            Errno::OPNOTSUPP => self.fail("source route failed (reported by a router)"),
            Errno::PROTO => self.fail("protocol error (reported by a router)"),
            // The kernel gave up before the deadline of the check.
            Errno::TIMEDOUT => self.fail("no answer"),
            _ => self.fail(os_error_text(error)),
        }
    }

    /// Returns the verdict on an error that this host itself caused, before anything was sent.
    pub(crate) fn local_error(self, error: &io::Error) -> Verdict {
        let Some(errno) = Errno::from_io_error(error) else {
            return self.inconclusive(error);
        };
        match errno {
            Errno::ACCESS | Errno::PERM => self.inconclusive("not allowed from this host"),
            Errno::NETUNREACH | Errno::HOSTUNREACH => self.inconclusive("no route from this host"),
            _ => match shortage(errno) {
                Some(shortage) => self.inconclusive(shortage),
                None => self.inconclusive(os_error_text(error)),
            },
        }
    }
}

/// Returns whether the reason of a verdict is of the login of a check.
pub(crate) fn is_of_login(reason: &str) -> bool {
    is_of(Phase::Auth, reason)
}

/// Returns whether the reason of a verdict is of TLS.
pub(crate) fn is_of_tls(reason: &str) -> bool {
    is_of(Phase::Tls, reason)
}

/// Returns whether the reason of a verdict is of the role of a server.
pub(crate) fn is_of_role(reason: &str) -> bool {
    is_of(Phase::Role, reason)
}

fn is_of(phase: Phase, reason: &str) -> bool {
    reason.strip_prefix(&phase.to_string()).is_some_and(|rest| rest.starts_with(": "))
}

/// Returns the resource that this host lacks, if the error can mean nothing else.
fn shortage(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::MFILE | Errno::NFILE => "this host has no free file descriptor",
        Errno::NOBUFS | Errno::NOMEM => "this host has no free memory",
        Errno::AGAIN => "this host has no free process or port",
        Errno::ADDRNOTAVAIL => "this host has no free local port",
        Errno::NETDOWN => "the network of this host is down",
        Errno::AFNOSUPPORT | Errno::INVAL => "this host cannot reach this kind of address",
        _ => return None,
    })
}

/// Returns the text of an operating system's error, without the number that std appends.
pub(crate) fn os_error_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(phase: Phase, errno: Errno) -> Verdict {
        phase.io_error(&io::Error::from_raw_os_error(errno.raw_os_error()))
    }

    #[test]
    fn a_shortage_of_this_host_is_inconclusive_in_any_phase() {
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::ADDRNOTAVAIL,
            Errno::NETDOWN,
            Errno::INVAL,
        ] {
            for got in [verdict(Phase::Connect, errno), Phase::Connect.local_error(&errno.into())] {
                assert!(matches!(got, Verdict::Inconclusive(_)), "{errno:?} gave {got:?}");
            }
        }
    }

    // Before anything was sent, an error is this host's own. Later it comes from outside.
    #[test]
    fn an_immediate_error_is_local_and_a_later_one_is_not() {
        let table = [
            (
                Errno::NETUNREACH,
                "no route from this host",
                "network unreachable (reported by a router)",
            ),
            (Errno::HOSTUNREACH, "no route from this host", "host unreachable"),
            (
                Errno::ACCESS,
                "not allowed from this host",
                "administratively prohibited (reported by a router)",
            ),
            (
                Errno::PERM,
                "not allowed from this host",
                "administratively prohibited (reported by a router)",
            ),
            (Errno::NOSPC, "no space left on device", "no space left on device"),
        ];
        for (errno, at_once, later) in table {
            let own = Phase::Connect.local_error(&errno.into());
            assert_eq!(own, Verdict::Inconclusive(format!("connect: {at_once}")), "{errno:?}");
            assert_eq!(
                verdict(Phase::Connect, errno),
                Verdict::Fail(format!("connect: {later}")),
                "{errno:?}"
            );
        }
    }

    #[test]
    fn an_error_from_outside_fails_with_its_reason() {
        let fails = [
            (Phase::Connect, Errno::CONNREFUSED, "connect: refused"),
            (Phase::Connect, Errno::CONNRESET, "connect: reset"),
            (Phase::Connect, Errno::TIMEDOUT, "connect: no answer"),
            (
                Phase::Connect,
                Errno::NOPROTOOPT,
                "connect: protocol unreachable (reported by a router)",
            ),
            (Phase::Connect, Errno::HOSTDOWN, "connect: host unknown (reported by a router)"),
            (Phase::Connect, Errno::NONET, "connect: this host is isolated (reported by a router)"),
            (Phase::Expect, Errno::CONNRESET, "expect: connection reset"),
            (Phase::Http, Errno::NETUNREACH, "http: network unreachable (reported by a router)"),
            (Phase::Send, Errno::PIPE, "send: connection closed"),
            (Phase::Connect, Errno::PROTO, "connect: protocol error (reported by a router)"),
        ];
        for (phase, errno, reason) in fails {
            assert_eq!(verdict(phase, errno), Verdict::Fail(reason.into()));
        }
    }

    #[test]
    fn a_reason_is_of_the_phase_that_it_begins_with() {
        for (reason, login, role) in [
            ("auth: refused (28P01): is the password right?", true, false),
            ("role: replica, not primary", false, true),
            ("keys: the server wants new ones", false, false),
            ("exec: auth: no", false, false),
            ("authority: x", false, false),
            ("", false, false),
        ] {
            assert_eq!((is_of_login(reason), is_of_role(reason)), (login, role), "{reason}");
        }
    }

    #[test]
    fn a_timeout_names_the_phase_and_the_duration() {
        let late = |phase: Phase, ms| to_verdict(phase.timed_out(Duration::from_millis(ms)));
        assert_eq!(late(Phase::Connect, 2000), Verdict::Fail("connect: no answer in 2s".into()));
        assert_eq!(late(Phase::Tls, 500), Verdict::Fail("tls: no answer in 500ms".into()));
        assert_eq!(
            late(Phase::Exec, 1500),
            Verdict::Fail("exec: the command did not exit in 1s 500ms".into())
        );
        assert_eq!(late(Phase::Files, 2000), Verdict::Inconclusive("files: not read in 2s".into()));
    }
}
