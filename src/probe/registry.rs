//! The prober of each kind of check: one line a kind.

use super::kind::{CheckProber, NewProber};
use super::target::Target;
use crate::config::CheckKind;

macro_rules! probers {
    ($($module:ident => $variant:ident($record:ident)),* $(,)?) => {
        /// Makes the prober of a check.
        pub(super) fn new_prober(kind: &CheckKind, target: &Target) -> Box<dyn CheckProber> {
            match kind {
                $(CheckKind::$variant(check) => check.new_prober(target),)*
            }
        }
    };
}

probers! {
    tcp => Tcp(TcpCheck),
    http => Http(HttpCheck),
    exec => Exec(ExecCheck),
}
