//! The prober of each kind of check.
//!
//! The list of kinds is `check_kinds!` in the config. A new kind is a line there, a file in
//! `config/kinds/` with its settings, and a file in `probe/` with its prober. A prober implements
//! [`CheckProber`], and the settings implement [`NewProber`] in the prober's file. The compiler
//! names each part that is missing.

use super::kind::{CheckProber, NewProber};
use super::target::Target;
use crate::config::{CheckKind, check_kinds};

/// Defines a match over all kinds.
macro_rules! define_new_prober {
    ($($module:ident => $variant:ident($check:ident),)*) => {
        /// Makes the prober of a check.
        pub(super) fn new_prober(kind: &CheckKind, target: &Target) -> Box<dyn CheckProber> {
            match kind {
                $(CheckKind::$variant(check) => check.new_prober(target),)*
            }
        }
    };
}

check_kinds!(define_new_prober);
