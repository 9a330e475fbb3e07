//! Large and random inputs: no text makes the reader panic, and `explain` loses nothing.

use std::fs;

use external_endpoints::config::explain;
use proptest::prelude::*;

use super::{files, good, random, read};

#[test]
fn a_large_config_is_read_quickly() {
    let mut text = String::from("databases:\n");
    for index in 0..2000 {
        let ips = (0..5)
            .map(|last| format!("10.{}.{}.{last}", index / 250, index % 250))
            .collect::<Vec<_>>()
            .join(", ");
        text.push_str(&format!(
            "- {{service: db-{index}, port: 3306, addresses: [{ips}], check: {{tcp: {{}}}}}}\n"
        ));
    }
    assert_eq!(good(&text).databases.len(), 2000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_configs_read_back_the_same(spec in random::specs()) {
        let explained = explain(&spec);
        let loaded = read(&explained);
        let problems = loaded.as_ref().err().map(|problems| problems.report());
        prop_assert!(problems.is_none(), "{}\n{explained}", problems.unwrap_or_default());
        prop_assert_eq!(loaded.unwrap().spec, spec, "{}", explained);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        show_all(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_text_of_yaml_signs_makes_it_panic(
        text in "[-?:,\\[\\]{}#&*!|>'\"%@` \t\n\rab~<0é]{0,60}",
    ) {
        show_all(&text);
        show_all(&format!("databases:\n- service: {text}\n  check: {{tcp: {{send: x}}}}\n"));
    }

    #[test]
    fn no_small_change_makes_it_panic(
        place in any::<proptest::sample::Index>(),
        file in any::<proptest::sample::Index>(),
        removed in 0..20_usize,
        added in "[-?:,\\[\\]{}#&*!|>'\" \t\n0a]{0,5}",
    ) {
        let mut paths = files("tests/config/good");
        paths.extend(files("tests/config/bad"));
        let bytes = fs::read(&paths[file.index(paths.len())]).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let chars: Vec<char> = text.chars().collect();
        let at = place.index(chars.len() + 1);
        let rest = chars.iter().skip(at + removed);
        let kept = chars.iter().take(at).copied();
        let changed: String = kept.chain(added.chars()).chain(rest.copied()).collect();
        show_all(&changed);
    }
}

/// Calls everything that shows a config or its problems.
fn show_all(text: &str) {
    match read(text) {
        Ok(loaded) => {
            loaded.warnings.report();
            explain(&loaded.spec);
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "rejected without a problem:\n{text}");
            problems.report();
        }
    }
}
