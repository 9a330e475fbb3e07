//! The ASCII form of a label with other letters: Punycode (RFC 3492), for advice to people.
//!
//! Unicode normalization is not part of it, so labels that need it have no form here.

/// The parameters of RFC 3492, section 5.
const BASE: u32 = 36;
const MIN_THRESHOLD: u32 = 1;
const MAX_THRESHOLD: u32 = 26;
const SKEW: u32 = 38;
const FIRST_DAMP: u32 = 700;
const DAMP: u32 = 2;
const FIRST_BIAS: u32 = 72;
const FIRST_CODE: u32 = 0x80;

/// Returns a name in which each label is ASCII, as DNS has it. None if a label would be too long,
/// or has a character whose form needs more than Punycode.
pub(super) fn to_ascii(name: &str) -> Option<String> {
    let is_wide = |char: char| matches!(char, '\u{ff00}'..='\u{ffef}');
    let is_plain = |char: char| char.is_alphanumeric() && !is_wide(char) || "-_.".contains(char);
    // The encoder takes time that grows with the square of a label's length.
    if name.len() > 4 * super::MAX_NAME_LENGTH {
        return None;
    }
    let name = name.to_lowercase();
    if !name.chars().all(is_plain) {
        return None;
    }
    let labels: Option<Vec<String>> = name.split('.').map(label_to_ascii).collect();
    Some(labels?.join("."))
}

fn label_to_ascii(label: &str) -> Option<String> {
    if label.is_ascii() {
        return Some(label.to_owned());
    }
    let encoded = format!("xn--{}", encode(label)?);
    (encoded.len() <= super::MAX_LABEL_LENGTH).then_some(encoded)
}

/// Encodes a text by RFC 3492, section 6.3. None if a number overflows.
fn encode(text: &str) -> Option<String> {
    let mut output: String = text.chars().filter(char::is_ascii).collect();
    let ascii_count = u32::try_from(output.len()).ok()?;
    if ascii_count > 0 {
        output.push('-');
    }
    let codes: Vec<u32> = text.chars().map(u32::from).collect();
    let (mut code, mut delta, mut bias, mut handled) = (FIRST_CODE, 0_u32, FIRST_BIAS, ascii_count);
    while let Some(next) = codes.iter().copied().filter(|other| *other >= code).min() {
        delta = delta.checked_add((next - code).checked_mul(handled + 1)?)?;
        code = next;
        for other in &codes {
            if *other < code {
                delta = delta.checked_add(1)?;
            } else if *other == code {
                push_number(&mut output, delta, bias);
                let damp = if handled == ascii_count { FIRST_DAMP } else { DAMP };
                bias = adapt(delta / damp, handled + 1);
                (delta, handled) = (0, handled + 1);
            }
        }
        (code, delta) = (code + 1, delta.checked_add(1)?);
    }
    Some(output)
}

/// Appends a number whose digits have the thresholds of this bias.
fn push_number(output: &mut String, mut number: u32, bias: u32) {
    for position in (BASE..).step_by(BASE as usize) {
        let threshold = position.saturating_sub(bias).clamp(MIN_THRESHOLD, MAX_THRESHOLD);
        if number < threshold {
            break;
        }
        output.push(digit(threshold + (number - threshold) % (BASE - threshold)));
        number = (number - threshold) / (BASE - threshold);
    }
    output.push(digit(number));
}

fn digit(value: u32) -> char {
    char::from_digit(value + 10, 36).or(char::from_digit(value.wrapping_sub(26), 10)).unwrap_or('a')
}

/// Returns the bias for the next number, by the damped last one: RFC 3492, section 6.1.
fn adapt(delta: u32, handled: u32) -> u32 {
    let mut delta = delta + delta / handled;
    let mut bias = 0;
    while delta > (BASE - MIN_THRESHOLD) * MAX_THRESHOLD / 2 {
        delta /= BASE - MIN_THRESHOLD;
        bias += BASE;
    }
    bias + (BASE - MIN_THRESHOLD + 1) * delta / (delta + SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_the_form_that_dns_has() {
        for (name, expected) in [
            ("dätenbank.Example", "xn--dtenbank-0za.example"),
            ("DÄTENBANK.example", "xn--dtenbank-0za.example"),
            ("straße.bücher", "xn--strae-oqa.xn--bcher-kva"),
            ("münchen-ost.corp", "xn--mnchen-ost-9db.corp"),
            ("база-1.x", "xn---1-6kcad1b.x"),
            ("日本語.x", "xn--wgv71a119e.x"),
            ("데이터베이스.x", "xn--2n1b77o91e0pfba460m.x"),
            ("é._x.ü_x", "xn--9ca._x.xn--_x-wka"),
        ] {
            assert_eq!(to_ascii(name).as_deref(), Some(expected), "{name}");
        }
    }

    // The samples L and O of RFC 3492, section 7.1.
    #[test]
    fn samples_of_the_rfc_are_encoded() {
        assert_eq!(encode("3年b組金八先生").as_deref(), Some("3b-ww4c5e180e575a65lsy2b"));
        assert_eq!(encode("ひとつ屋根の下2").as_deref(), Some("2-u9tlzr9756bt3uc0v"));
    }

    #[test]
    fn names_that_need_more_have_none() {
        for name in ["de\u{301}.x", "ｄｂ.x", "d\u{200b}b.x", "é/x.y"] {
            assert_eq!(to_ascii(name), None, "{name}");
        }
        assert_eq!(to_ascii(&"é".repeat(1 << 20)), None);
        assert_eq!(to_ascii(&format!("{}.x", "日本".repeat(30))), None);
    }
}
