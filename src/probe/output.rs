//! What a command printed: the end of it is kept, secrets are masked, and a line's worth is quoted in the reason.

use super::text::escape;

/// How much of the output is kept; the rest is read and dropped, so that nobody waits on a full pipe.
const KEPT: usize = 4 << 10;
/// How much of it a reason shows.
const SHOWN: usize = 200;
const MASK: &[u8] = b"***";

/// The last bytes of a stream.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    /// Something came before.
    cut: bool,
}

impl Output {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if let Some(spare @ 1..) = self.bytes.len().checked_sub(KEPT) {
            self.bytes.drain(..spare);
            self.cut = true;
        }
    }

    /// The end of the output in quotes, without the secrets; None if there was none. The end, because what went wrong
    /// is what a program says last.
    pub fn quoted(&self, secrets: &Secrets) -> Option<String> {
        let masked = secrets.mask(&self.bytes, self.cut);
        let text = String::from_utf8_lossy(&masked);
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let quoted: Vec<char> = escape(text.chars()).chars().collect();
        let hidden = quoted.len().saturating_sub(SHOWN);
        let shown: String = quoted[hidden..].iter().collect();
        Some(if hidden > 0 || self.cut { format!("\"…{shown}\"") } else { format!("\"{shown}\"") })
    }
}

/// The values that no reason may show.
#[derive(Default)]
pub(super) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    pub fn add(&mut self, value: &[u8]) {
        // A program may print one line of a key and not the next.
        let lines = value.split(|&byte| byte == b'\n').map(|line| line.trim_ascii()).filter(|line| line.len() >= 4);
        let parts = lines.chain([value, value.trim_ascii()]).filter(|part| !part.is_empty());
        self.0.extend(parts.map(<[u8]>::to_vec));
        // The longest first: one secret may hold another.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        self.0.dedup();
    }

    /// `cut` says that the bytes may begin in the middle of a secret.
    fn mask(&self, bytes: &[u8], cut: bool) -> Vec<u8> {
        let mut masked = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        let begun = self.0.iter().filter(|_| cut).filter_map(|secret| end_of(secret, bytes)).max();
        if let Some(length) = begun {
            masked.extend_from_slice(MASK);
            rest = &rest[length..];
        }
        while let Some((first, after)) = rest.split_first() {
            match self.0.iter().find(|secret| rest.starts_with(secret)) {
                Some(secret) => {
                    masked.extend_from_slice(MASK);
                    rest = &rest[secret.len()..];
                }
                None => {
                    masked.push(*first);
                    rest = after;
                }
            }
        }
        masked
    }
}

/// How many bytes at the start are the end of a secret.
fn end_of(secret: &[u8], bytes: &[u8]) -> Option<usize> {
    (1..secret.len()).rev().find(|&length| bytes.starts_with(&secret[secret.len() - length..]))
}

#[cfg(test)]
mod tests {
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
        assert!(long.starts_with("\"…") && long.chars().count() == SHOWN + 3, "{long}");
    }

    #[test]
    fn the_end_is_kept_in_bounded_memory() {
        let mut output = Output::default();
        for _ in 0..1000 {
            output.push(&[b'y'; 4096]);
        }
        output.push(b"\nthe end");
        assert!(output.bytes.len() <= KEPT && output.bytes.capacity() < 4 * KEPT);
        assert!(output.quoted(&Secrets::default()).unwrap().ends_with("yy\\nthe end\""));
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        assert_eq!(quoted(b"pw=hunter2!", &["hunter2"]).unwrap(), "\"pw=***!\"");
        assert_eq!(quoted(b"hunter2hunter22", &["hunter2", "hunter22"]).unwrap(), "\"******\"");
        assert_eq!(quoted(b"say BEGINKEY now", &["BEGINKEY\nabcdefgh\n"]).unwrap(), "\"say *** now\"");
        assert_eq!(quoted(b"abcdefgh", &["BEGINKEY\nabcdefgh\n"]).unwrap(), "\"***\"");
        // Cut in the middle of the secret: its end must not show.
        let secret = "0123456789".repeat(10);
        for spare in 1..secret.len() {
            let mut printed = secret.clone().into_bytes();
            printed.extend(vec![b' '; KEPT - secret.len() + spare - 1]);
            printed.push(b'.');
            let shown = quoted(&printed, &[&secret]).unwrap();
            assert!(shown.ends_with('.') || shown.ends_with(".\""), "{shown}");
            assert!(!shown.contains('9'), "{spare}: {shown}");
        }
    }
}
