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
    assert!(output.bytes.len() <= OUTPUT_CAPACITY && output.bytes.capacity() < 4 * OUTPUT_CAPACITY);
    assert!(output.quoted(&Secrets::default()).unwrap().ends_with("yy\\nthe end\""));
}

#[test]
fn secrets_are_masked_wherever_they_stand() {
    assert_eq!(quoted(b"pw=hunter2!", &["hunter2"]).unwrap(), "\"pw=***!\"");
    assert_eq!(quoted(b"hunter2hunter22", &["hunter2", "hunter22"]).unwrap(), "\"******\"");
    assert_eq!(quoted(b"say BEGINKEY now", &["BEGINKEY\nabcdefgh\n"]).unwrap(), "\"say *** now\"");
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
    let lines =
        proptest::collection::vec("[A-Za-z0-9+/=]{0,30}", 1..4).prop_map(|lines| lines.join("\n"));
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
