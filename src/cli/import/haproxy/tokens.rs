//! Splits the lines of an HAProxy config into words, as HAProxy does. Pure.
//!
//! | in a line | means |
//! | --- | --- |
//! | `\` before a character | that character; `\r`, `\n`, `\t` and `\xHH` are control characters |
//! | `'…'` | these characters as they are |
//! | `"…"` | these characters, with `\` as above and variables |
//! | `$NAME`, `${NAME}` in `"…"` | a variable of HAProxy's environment, which is not known here |
//! | `#` | the rest is a comment |

/// The words of a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) words: Vec<String>,
    /// True if a variable is part of a word. It stays as it is written.
    pub(super) has_variable: bool,
}

/// Splits a line. A quote that does not end reaches to the end of the line.
pub(super) fn split(line: &str) -> Words {
    let mut split = Words::default();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('\'', None) | ('"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let Some(escaped) = rest.next() else { break };
                let word = word.get_or_insert_default();
                word.push(match escaped {
                    'r' => '\r',
                    'n' => '\n',
                    't' => '\t',
                    'x' => {
                        let digits: String = rest.clone().take(2).collect();
                        match u8::from_str_radix(&digits, 16) {
                            Ok(byte) => {
                                rest.by_ref().nth(1);
                                char::from(byte)
                            }
                            Err(_) => 'x',
                        }
                    }
                    other => other,
                });
            }
            ('$', Some('"')) => {
                split.has_variable = true;
                word.get_or_insert_default().push('$');
            }
            ('#', None) => break,
            (c, None) if c.is_whitespace() => split.words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    split.words.extend(word);
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_haproxy_does() {
        let table: [(&str, &[&str]); 10] = [
            ("  server a 10.0.0.1:80 check # comment", &["server", "a", "10.0.0.1:80", "check"]),
            (r"option httpchk GET /a\ b", &["option", "httpchk", "GET", "/a b"]),
            (r#"http-check send hdr Host "a b""#, &["http-check", "send", "hdr", "Host", "a b"]),
            (r"tcp-check send PING\r\n", &["tcp-check", "send", "PING\r\n"]),
            (r"tcp-check send 'PING\r\n'", &["tcp-check", "send", r"PING\r\n"]),
            (r"a \x41\# b", &["a", "A#", "b"]),
            (r"a \xé\xzz", &["a", "xéxzz"]),
            ("# only", &[]),
            (r#"a "" '' "#, &["a", "", ""]),
            (r#"a "unfinished # b"#, &["a", "unfinished # b"]),
        ];
        for (line, words) in table {
            assert_eq!(split(line).words, words, "{line}");
        }
        assert_eq!(split("a \\").words, ["a"]);
    }

    #[test]
    fn variables_are_not_known_here() {
        assert!(split(r#"server a "${HOST}:80""#).has_variable);
        assert!(!split("server a 10.0.0.1:80").has_variable);
        assert!(!split("server a '$HOST'").has_variable);
    }
}
