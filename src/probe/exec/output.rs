//! The output of a command: its end is kept, secrets are masked, and a reason quotes one line of
//! it.

use std::ops::Range;

use crate::probe::text::escape;

/// The part of the output that is kept. The rest is read and dropped, so that no command blocks on
/// a full pipe.
const OUTPUT_CAPACITY: usize = 4 << 10;
/// The length of the quote in a reason.
const MAX_QUOTED_CHARS: usize = 200;
const MASK: &[u8] = b"***";

/// The last bytes of a stream.
#[derive(Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// True if bytes before these were dropped.
    truncated: bool,
}

impl Output {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if let Some(spare @ 1..) = self.bytes.len().checked_sub(OUTPUT_CAPACITY) {
            self.bytes.drain(..spare);
            self.truncated = true;
        }
    }

    /// Returns the end of the output in quotes, with secrets masked, or `None` if there is none. A
    /// program prints last what went wrong.
    pub(crate) fn quoted(&self, secrets: &Secrets) -> Option<String> {
        let masked = secrets.mask(self);
        let text = String::from_utf8_lossy(&masked);
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let quoted: Vec<char> = escape(text.chars()).chars().collect();
        let hidden = quoted.len().saturating_sub(MAX_QUOTED_CHARS);
        let shown: String = quoted[hidden..].iter().collect();
        Some(if hidden > 0 || self.truncated {
            format!("\"…{shown}\"")
        } else {
            format!("\"{shown}\"")
        })
    }
}

/// The values that no reason may show.
#[derive(Default)]
pub(crate) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    pub(crate) fn add(&mut self, value: &[u8]) {
        // A program may print one line of a key without the next.
        let lines = value
            .split(|&byte| byte == b'\n')
            .map(|line| line.trim_ascii())
            .filter(|line| line.len() >= 4);
        let parts = lines.chain([value, value.trim_ascii()]).filter(|part| !part.is_empty());
        self.0.extend(parts.map(<[u8]>::to_vec));
        // The longest first, because one secret may contain another.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        self.0.dedup();
    }

    /// Replaces each secret by a mask. Secrets that overlap are replaced by one mask.
    fn mask(&self, output: &Output) -> Vec<u8> {
        let bytes = &output.bytes;
        let mut masked = Vec::with_capacity(bytes.len());
        let mut shown = 0;
        for Range { start, end } in self.places_in(output) {
            masked.extend_from_slice(&bytes[shown..start]);
            masked.extend_from_slice(MASK);
            shown = end;
        }
        masked.extend_from_slice(&bytes[shown..]);
        masked
    }

    /// Returns the places of secrets, in order. Secrets that overlap are one place.
    fn places_in(&self, output: &Output) -> Vec<Range<usize>> {
        let bytes = &output.bytes;
        let begun = self
            .0
            .iter()
            .filter(|_| output.truncated)
            .filter_map(|secret| rest_of(secret, bytes))
            .max();
        let mut found: Vec<Range<usize>> = begun.map(|end| 0..end).into_iter().collect();
        for start in 0..bytes.len() {
            // The first match is the longest.
            let Some(secret) = self.0.iter().find(|secret| bytes[start..].starts_with(secret))
            else {
                continue;
            };
            let end = start + secret.len();
            match found.last_mut() {
                Some(last) if start < last.end => last.end = last.end.max(end),
                _ => found.push(start..end),
            }
        }
        found
    }
}

/// Returns the number of bytes at the start that belong to a truncated secret: its end, or a part
/// of its middle if the output holds no more.
fn rest_of(secret: &[u8], bytes: &[u8]) -> Option<usize> {
    if !bytes.is_empty() && secret.windows(bytes.len()).any(|part| part == bytes) {
        return Some(bytes.len());
    }
    (1..secret.len()).rev().find(|&length| bytes.starts_with(&secret[secret.len() - length..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(printed: &[u8], secrets: &[&str]) -> Option<String> {
        let mut output = Output::default();
        printed.chunks(1000).for_each(|chunk| output.push(chunk));
        let mut all = Secrets::default();
        secrets.iter().for_each(|secret| all.add(secret.as_bytes()));
        output.quoted(&all)
    }

    #[test]
    fn output_is_one_escaped_line() {
        assert_eq!(quoted(b"", &[]), None);
        assert_eq!(quoted(b" \r\n", &[]), None);
        assert_eq!(quoted(b"a\n\x1b[31mb\xff\"\n", &[]).unwrap(), r#""a\n\u{1b}[31mb�\"""#);
        let long = quoted(&b"x\n".repeat(500), &[]).unwrap();
        assert!(long.starts_with("\"…") && long.chars().count() == MAX_QUOTED_CHARS + 3, "{long}");
    }

    #[test]
    fn the_end_is_kept_in_bounded_memory() {
        let mut output = Output::default();
        for _ in 0..1000 {
            output.push(&[b'y'; 4096]);
        }
        output.push(b"\nthe end");
        assert!(
            output.bytes.len() <= OUTPUT_CAPACITY && output.bytes.capacity() < 4 * OUTPUT_CAPACITY
        );
        assert!(output.quoted(&Secrets::default()).unwrap().ends_with("yy\\nthe end\""));
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        assert_eq!(quoted(b"pw=hunter2!", &["hunter2"]).unwrap(), "\"pw=***!\"");
        assert_eq!(quoted(b"hunter2hunter22", &["hunter2", "hunter22"]).unwrap(), "\"******\"");
        assert_eq!(
            quoted(b"say BEGINKEY now", &["BEGINKEY\nabcdefgh\n"]).unwrap(),
            "\"say *** now\""
        );
        assert_eq!(quoted(b"abcdefgh", &["BEGINKEY\nabcdefgh\n"]).unwrap(), "\"***\"");
        // Truncated in the middle of the secret: the end must not show.
        let secret = "0123456789".repeat(10);
        for spare in 1..secret.len() {
            let mut printed = secret.clone().into_bytes();
            printed.extend(vec![b' '; OUTPUT_CAPACITY - secret.len() + spare - 1]);
            printed.push(b'.');
            let shown = quoted(&printed, &[&secret]).unwrap();
            assert!(shown.ends_with('.') || shown.ends_with(".\""), "{shown}");
            assert!(!shown.contains('9'), "{spare}: {shown}");
        }
    }

    #[test]
    fn secrets_that_overlap_are_masked_as_one() {
        assert_eq!(quoted(b"abcdefghij.", &["abcdefg", "defghij"]).unwrap(), "\"***.\"");
        assert_eq!(quoted(b"xaaaaay", &["aaaa"]).unwrap(), "\"x***y\"");
    }

    #[test]
    fn nothing_but_the_middle_of_a_long_secret_is_masked() {
        let secret: String = (0..3000).map(|number| format!("{number:04x}")).collect();
        // The command printed only a part, and its beginning is not kept.
        let shown = quoted(&secret.as_bytes()[..8000], &[&secret]).unwrap();
        assert_eq!(shown, "\"…***\"");
    }

    /// Returns words, some of which overlap, repeat or contain each other, and lines of keys.
    fn secret() -> impl Strategy<Value = Vec<u8>> {
        let lines = proptest::collection::vec("[A-Za-z0-9+/=]{0,30}", 1..4)
            .prop_map(|lines| lines.join("\n"));
        let text =
            prop_oneof!["[ab]{4,7}", "[a-zA-Z0-9]{4,40}", "[ -)+-~]{4,20}", "[äöüß€]{2,8}", lines];
        let bytes = proptest::collection::vec(any::<u8>(), 4..20);
        prop_oneof![text.prop_map(String::into_bytes), bytes]
    }

    /// Returns output made of secrets, parts of secrets, and other text.
    fn printed(secrets: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let whole = proptest::sample::select(secrets.clone());
        let part = (proptest::sample::select(secrets), any::<prop::sample::Index>())
            .prop_map(|(secret, index)| secret[index.index(secret.len())..].to_vec());
        let other = prop_oneof![
            "[ab \n\"\\\\]{0,9}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..20),
            (0..3000_usize).prop_map(|length| vec![b'x'; length]),
        ];
        proptest::collection::vec(prop_oneof![3 => whole, 1 => part, 3 => other], 0..12)
            .prop_map(|pieces| pieces.concat())
    }

    fn secrets_and_output() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>)> {
        let secrets = proptest::collection::vec(
            secret().prop_filter("a value", |secret| secret.len() >= 4),
            1..5,
        );
        secrets.prop_flat_map(|secrets| (Just(secrets.clone()), printed(secrets)))
    }

    fn holds(text: &[u8], secret: &[u8]) -> bool {
        text.windows(secret.len()).any(|part| part == secret)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_secret_survives_however_the_output_comes(
            (secrets, printed) in secrets_and_output(),
            sizes in proptest::collection::vec(1..4096_usize, 1..20),
        ) {
            let mut all = Secrets::default();
            secrets.iter().for_each(|secret| all.add(secret));
            let (mut output, mut rest) = (Output::default(), &printed[..]);
            let mut sizes = sizes.iter().cycle();
            while let (false, Some(size)) = (rest.is_empty(), sizes.next()) {
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                output.push(chunk);
                prop_assert!(output.bytes.len() <= OUTPUT_CAPACITY);
                rest = after;
            }
            let masked = all.mask(&output);
            let quoted = output.quoted(&all).unwrap_or_default();
            prop_assert!(quoted.chars().count() <= MAX_QUOTED_CHARS + 3, "{}", quoted);
            prop_assert!(!quoted.contains(char::is_control), "{:?}", quoted);
            // The mask's own character may occur in a secret.
            for secret in secrets.iter().filter(|secret| !secret.contains(&b'*')) {
                prop_assert!(!holds(&masked, secret), "{:?} in {:?}", secret, masked);
                // The letter of an escape, as in `\n`, must not begin a secret.
                if secret.iter().all(u8::is_ascii_alphanumeric) && !b"nrtu0".contains(&secret[0]) {
                    prop_assert!(!holds(quoted.as_bytes(), secret), "{:?} in {}", secret, quoted);
                }
            }
            // The same is shown, however the output is split.
            let mut whole = Output::default();
            whole.push(&printed);
            prop_assert_eq!(whole.quoted(&all).unwrap_or_default(), quoted);
        }

        #[test]
        fn no_bytes_make_it_panic(
            printed in proptest::collection::vec(any::<u8>(), 0..6000),
            secrets in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..6),
                0..5,
            ),
        ) {
            let mut all = Secrets::default();
            secrets.iter().for_each(|secret| all.add(secret));
            let mut output = Output::default();
            printed.chunks(997).for_each(|chunk| output.push(chunk));
            let quoted = output.quoted(&all).unwrap_or_default();
            prop_assert!(quoted.chars().count() <= MAX_QUOTED_CHARS + 3);
        }
    }
}
