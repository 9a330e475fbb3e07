//! Bytes in hex: two digits for each byte, with optional spaces between bytes.

/// Returns the bytes, or what is wrong and what to write instead.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    // The first digit of a byte, and its number.
    let mut half: Option<(u8, usize)> = None;
    for (place, char) in (1..).zip(text.chars()) {
        half = match (char.to_digit(16), half) {
            (Some(digit), None) => Some((digit as u8, place)),
            (Some(digit), Some((first, _))) => {
                bytes.push(first << 4 | digit as u8);
                None
            }
            (None, half) if char.is_ascii_whitespace() => match half {
                Some((_, at)) => return Err(single(at)),
                None => None,
            },
            (None, _) => return Err(not_a_digit(char, place)),
        };
    }
    match half {
        Some((_, at)) => Err(single(at)),
        None if bytes.is_empty() => {
            Err("there are no bytes here; write two hex digits for each, as in `00 0c`".into())
        }
        None => Ok(bytes),
    }
}

fn single(place: usize) -> String {
    format!("the hex digit at character {place} is alone, but a byte has two; write `0c` for `c`")
}

fn not_a_digit(char: char, place: usize) -> String {
    let shown: String = char.escape_debug().collect();
    let advice = if matches!(char, 'x' | 'X') {
        "write `0c` for `0x0c`"
    } else {
        "write digits from 0 to 9 and a to f"
    };
    format!("`{shown}`, character {place}, is not a hex digit; {advice}")
}

/// Writes the bytes as `00 0c`.
pub(crate) fn write(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hex_is_read_with_and_without_blanks() {
        for text in ["000cff", "00 0c ff", " 00\t0C\nFF ", "000c FF"] {
            assert_eq!(parse(text).as_deref(), Ok(&[0, 12, 255][..]), "{text:?}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let table = [
            ("", "there are no bytes here; "),
            (" \n", "there are no bytes here; "),
            ("0", "the hex digit at character 1 is alone"),
            ("00 0", "the hex digit at character 4 is alone"),
            ("0 0c", "the hex digit at character 1 is alone"),
            ("0x0c", "`x`, character 2, is not a hex digit; write `0c` for `0x0c`"),
            ("00 0g", "`g`, character 5, is not a hex digit; write digits"),
            ("00é", "`é`, character 3, is not a hex digit"),
            ("00:0c", "`:`, character 3, is not a hex digit"),
            ("00\u{200b}", "`\\u{200b}`, character 3, is not a hex digit"),
        ];
        for (text, message) in table {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(message), "{text:?}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn written_bytes_read_back_the_same(
            bytes in proptest::collection::vec(any::<u8>(), 1..50),
        ) {
            prop_assert_eq!(parse(&write(&bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,30}") {
            let _ = parse(&text);
        }
    }
}
