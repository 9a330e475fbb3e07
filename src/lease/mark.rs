//! The mark of the Lease: an annotation with the process that holds it, or with the release by its
//! holder.
//!
//! A person who empties the holder by hand, or writes another name there, does not change the
//! annotation. The two no longer match then, and the Lease does not show who may still write.

use std::fmt;

/// The annotation's name.
pub(super) const ANNOTATION: &str = "external-endpoints/election";

/// The content of the annotation. It counts only for the transition that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// `held 7 by IDENTITY PROCESS`: the process acquired the Lease with its seventh transition.
    Held { transitions: i32, identity: String, process: String },
    /// `released 7 of UID`: the holder released the Lease with this UID after its last write had
    /// ended.
    Released { transitions: i32, uid: String },
}

impl Mark {
    /// Parses the annotation; none if it was not written by a daemon of this version.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let transitions = words.get(1)?.parse().ok()?;
        match words[..] {
            ["held", _, "by", identity, process] => Some(Self::Held {
                transitions,
                identity: identity.to_owned(),
                process: process.to_owned(),
            }),
            ["released", _, "of", uid] => Some(Self::Released { transitions, uid: uid.to_owned() }),
            _ => None,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { transitions, identity, process } => {
                write!(f, "held {transitions} by {identity} {process}")
            }
            Self::Released { transitions, uid } => write!(f, "released {transitions} of {uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let held =
            Mark::Held { transitions: 7, identity: "pod_uid".into(), process: "process".into() };
        let released = Mark::Released { transitions: i32::MAX, uid: "uid".into() };
        assert_eq!(held.to_string(), "held 7 by pod_uid process");
        for mark in [held, released] {
            assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        }
    }

    #[test]
    fn other_texts_are_no_mark() {
        let texts = [
            "",
            "held",
            "held x by a b",
            "held 7 by a",
            "held 7 by a b c",
            "released 7",
            "released 7 of a b",
        ];
        for text in texts {
            assert_eq!(Mark::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in ".{0,60}") {
            if let Some(mark) = Mark::parse(&text) {
                prop_assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
            }
        }
    }
}
