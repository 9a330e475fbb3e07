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
pub(super) struct Output {
    bytes: Vec<u8>,
    /// True if bytes before these were dropped.
    truncated: bool,
}

impl Output {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if let Some(spare @ 1..) = self.bytes.len().checked_sub(OUTPUT_CAPACITY) {
            self.bytes.drain(..spare);
            self.truncated = true;
        }
    }

    /// Returns the end of the output in quotes, with secrets masked, or `None` if there is none. A
    /// program prints last what went wrong.
    pub(super) fn quoted(&self, secrets: &Secrets) -> Option<String> {
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
pub(super) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    pub(super) fn add(&mut self, value: &[u8]) {
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
mod tests;
