//! Invisible characters, which turn a word into another one that looks the same. They come with
//! text from web pages and chats.

/// The characters with their names in Unicode.
const NAMES: [(char, &str); 48] = [
    ('\u{85}', "NEXT LINE"),
    ('\u{a0}', "NO-BREAK SPACE"),
    ('\u{ad}', "SOFT HYPHEN"),
    ('\u{34f}', "COMBINING GRAPHEME JOINER"),
    ('\u{61c}', "ARABIC LETTER MARK"),
    ('\u{115f}', "HANGUL CHOSEONG FILLER"),
    ('\u{1160}', "HANGUL JUNGSEONG FILLER"),
    ('\u{1680}', "OGHAM SPACE MARK"),
    ('\u{180e}', "MONGOLIAN VOWEL SEPARATOR"),
    ('\u{2000}', "EN QUAD"),
    ('\u{2001}', "EM QUAD"),
    ('\u{2002}', "EN SPACE"),
    ('\u{2003}', "EM SPACE"),
    ('\u{2004}', "THREE-PER-EM SPACE"),
    ('\u{2005}', "FOUR-PER-EM SPACE"),
    ('\u{2006}', "SIX-PER-EM SPACE"),
    ('\u{2007}', "FIGURE SPACE"),
    ('\u{2008}', "PUNCTUATION SPACE"),
    ('\u{2009}', "THIN SPACE"),
    ('\u{200a}', "HAIR SPACE"),
    ('\u{200b}', "ZERO WIDTH SPACE"),
    ('\u{200c}', "ZERO WIDTH NON-JOINER"),
    ('\u{200d}', "ZERO WIDTH JOINER"),
    ('\u{200e}', "LEFT-TO-RIGHT MARK"),
    ('\u{200f}', "RIGHT-TO-LEFT MARK"),
    ('\u{2028}', "LINE SEPARATOR"),
    ('\u{2029}', "PARAGRAPH SEPARATOR"),
    ('\u{202a}', "LEFT-TO-RIGHT EMBEDDING"),
    ('\u{202b}', "RIGHT-TO-LEFT EMBEDDING"),
    ('\u{202c}', "POP DIRECTIONAL FORMATTING"),
    ('\u{202d}', "LEFT-TO-RIGHT OVERRIDE"),
    ('\u{202e}', "RIGHT-TO-LEFT OVERRIDE"),
    ('\u{202f}', "NARROW NO-BREAK SPACE"),
    ('\u{205f}', "MEDIUM MATHEMATICAL SPACE"),
    ('\u{2060}', "WORD JOINER"),
    ('\u{2061}', "FUNCTION APPLICATION"),
    ('\u{2062}', "INVISIBLE TIMES"),
    ('\u{2063}', "INVISIBLE SEPARATOR"),
    ('\u{2064}', "INVISIBLE PLUS"),
    ('\u{2066}', "LEFT-TO-RIGHT ISOLATE"),
    ('\u{2067}', "RIGHT-TO-LEFT ISOLATE"),
    ('\u{2068}', "FIRST STRONG ISOLATE"),
    ('\u{2069}', "POP DIRECTIONAL ISOLATE"),
    ('\u{2800}', "BRAILLE PATTERN BLANK"),
    ('\u{3000}', "IDEOGRAPHIC SPACE"),
    ('\u{3164}', "HANGUL FILLER"),
    ('\u{feff}', "ZERO WIDTH NO-BREAK SPACE, also called byte order mark"),
    ('\u{ffa0}', "HALFWIDTH HANGUL FILLER"),
];

/// Returns the name of a block whose characters have no glyph of their own.
fn block(char: char) -> Option<&'static str> {
    match char {
        '\u{206a}'..='\u{206f}' => Some("deprecated format character"),
        '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => Some("VARIATION SELECTOR"),
        '\u{e0000}'..='\u{e007f}' => Some("TAG CHARACTER"),
        _ => None,
    }
}

fn name(char: char) -> Option<&'static str> {
    let named = NAMES.iter().find(|(known, _)| *known == char);
    named.map(|(_, name)| *name).or_else(|| block(char))
}

/// Returns true if nobody sees this character.
pub(crate) fn is_invisible(char: char) -> bool {
    !char.is_ascii() && name(char).is_some()
}

/// Returns the first invisible character of a text: its number, counted from 1, and its name.
pub(crate) fn first(text: &str) -> Option<(usize, String)> {
    let mut chars = (1..).zip(text.chars()).filter(|(_, char)| !char.is_ascii());
    chars.find_map(|(number, char)| {
        Some((number, format!("U+{:04X} {}", u32::from(char), name(char)?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_invisible_character_is_named() {
        let table = [
            ("mysql", None),
            ("a b\tc\n", None),
            ("größe 中文 é 😀", None),
            ("my\u{a0}sql", Some((3, "U+00A0 NO-BREAK SPACE"))),
            ("é\u{200b}\u{a0}", Some((2, "U+200B ZERO WIDTH SPACE"))),
            (
                "\u{feff}databases",
                Some((1, "U+FEFF ZERO WIDTH NO-BREAK SPACE, also called byte order mark")),
            ),
            ("a\u{fe0f}", Some((2, "U+FE0F VARIATION SELECTOR"))),
            ("a\u{e0041}", Some((2, "U+E0041 TAG CHARACTER"))),
        ];
        for (text, expected) in table {
            let found = first(text);
            let found = found.as_ref().map(|(number, name)| (*number, name.as_str()));
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
