//! Configs in the manifests of ConfigMaps: they mean the same there, and their mistakes have the
//! lines and the columns of the manifest.

use std::fs;
use std::path::Path;

use external_endpoints::config::{Choice, FoundConfig, Problems, ReadError, parse, parse_all};
use proptest::prelude::*;

use super::{files, options};

fn found(text: &str, choice: Choice) -> Vec<FoundConfig> {
    parse_all(Path::new("cm.yaml"), Ok(text.into()), &options(), choice)
}

fn named(text: &str) -> Vec<FoundConfig> {
    found(text, Choice::Named)
}

/// Returns the problems of the only config.
#[track_caller]
fn problems(text: &str) -> String {
    let mut found = named(text);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0).loaded.expect_err("a bad config").to_string()
}

const GOOD: &str = "databases: [{service: a, port: 1, addresses: [192.0.2.1], check: {tcp: {}}}]";

/// Writes a text as the block of a ConfigMap, below other documents and keys.
fn manifest(config: &str) -> (String, usize, usize) {
    let head = "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod}\n---\n\
                # The databases.\napiVersion: v1\nkind: ConfigMap\n\
                metadata:\n  namespace: prod\n  name: databases\n\
                data:\n  notes.txt: databases\n  config.yaml: |\n";
    let indented = |line: &str| {
        if line.trim().is_empty() { line.to_owned() } else { format!("    {line}") }
    };
    let body: Vec<String> = config.split('\n').map(indented).collect();
    let text = format!("{head}{}\n---\nkind: Secret\napiVersion: v1\n", body.join("\n"));
    (text, head.lines().count(), 4)
}

/// Returns the problems of a config as they must be where it stands further down and to the right.
fn moved(problems: &Problems, (lines, columns): (usize, usize)) -> Vec<String> {
    let each = problems.iter().map(|problem| {
        let place = problem.position.map(|it| (it.line + lines, it.column + columns));
        format!("{place:?} {}: {}", problem.path, problem.message)
    });
    each.collect()
}

/// Reads each config of the tests in a manifest, where it has the same spec and problems.
#[test]
fn a_config_in_a_manifest_is_read_as_one_alone() {
    let mut compared = 0;
    for path in files("tests/config/bad").into_iter().chain(files("tests/config/good")) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        // Messages that name other lines, and texts that no block can hold.
        let names_lines = |problems: &Problems| {
            problems
                .iter()
                .any(|problem| problem.message.contains(" line ") || problem.position.is_none())
        };
        let alone = parse("cm.yaml", &text, &options());
        if alone.as_ref().is_err_and(names_lines) || text.contains(['\u{feff}', '\r', '\u{7f}']) {
            continue;
        }
        let (manifest, lines, columns) = manifest(&text);
        let mut inside = named(&manifest);
        if inside.len() != 1 || inside[0].place.is_none() {
            // The text itself ends the block, or has a mistake that is one of the manifest.
            continue;
        }
        if inside[0].loaded.as_ref().is_err_and(|it| it.to_string().contains("of this text")) {
            // Its second document cannot be read in place.
            continue;
        }
        compared += 1;
        match (alone, inside.remove(0).loaded) {
            (Ok(alone), Ok(inside)) => {
                assert_eq!(alone.spec, inside.spec, "{}", path.display());
                let expected = moved(&alone.warnings, (lines, columns));
                assert_eq!(moved(&inside.warnings, (0, 0)), expected, "{}", path.display());
            }
            (Err(alone), Err(inside)) => {
                let expected = moved(&alone, (lines, columns));
                assert_eq!(moved(&inside, (0, 0)), expected, "{}", path.display());
            }
            (alone, inside) => panic!("{}: {alone:?}, {inside:?}", path.display()),
        }
    }
    assert!(compared > 40, "only {compared} were compared");
}

#[test]
fn a_mistake_in_a_manifest_has_its_line() {
    let bad = GOOD.replace("port: 1", "port: 0");
    let (text, lines, _) = manifest(&format!("# Ours.\n{bad}"));
    let line = text.lines().position(|line| line.contains("port: 0")).unwrap() + 1;
    assert_eq!(line, lines + 2);
    assert!(problems(&text).starts_with(&format!("cm.yaml:{line}:36: databases[0].port: ")));
    let places: Vec<_> = named(&text).into_iter().map(|found| found.place).collect();
    assert_eq!(places, [Some("ConfigMap prod/databases, config.yaml".to_owned())]);
    // The first line of the text may be the marker of a document.
    for config in [format!("---\n{GOOD}"), format!("{GOOD}\n---\n"), format!("# A\n--- \n{GOOD}")] {
        let (text, ..) = manifest(&config);
        assert!(named(&text)[0].loaded.is_ok(), "{text}");
    }
}

#[test]
fn a_text_in_quotes_has_its_mistakes_at_its_beginning() {
    let bad = GOOD.replace("port: 1", "port: 0");
    let json = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},
        "data": {"config.yaml": format!("# One.\n{bad}\n")},
    });
    let problems = problems(&serde_json::to_string_pretty(&json).unwrap());
    let start = "cm.yaml:4:20: databases[0].port: line 2, column 32 of this text: ";
    assert!(problems.starts_with(start), "{problems}");
}

#[test]
fn all_configs_of_a_file_are_found() {
    let map = |name: &str, key: &str, text: &str| {
        format!(
            "- apiVersion: v1\n  kind: ConfigMap\n  metadata: {{name: {name}}}\n  data:\n    \
             {key}: |\n      {text}\n"
        )
    };
    let items = [
        map("a", "config.yaml", GOOD),
        map("b", "db.txt", GOOD),
        map("c", "other", "no: config"),
        map("d", "config.yml", "databses: []"),
        "- {apiVersion: v1, kind: Service, metadata: {name: e}}\n".to_owned(),
    ];
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{}---\n{GOOD}\n", items.concat());
    let found = named(&list);
    let places: Vec<_> =
        found.iter().map(|found| found.place.as_deref().unwrap_or("alone")).collect();
    let expected =
        ["ConfigMap a, config.yaml", "ConfigMap b, db.txt", "ConfigMap d, config.yml", "alone"];
    assert_eq!(places, expected);
    let good: Vec<_> = found.iter().map(|found| found.loaded.is_ok()).collect();
    assert_eq!(good, [true, true, false, true], "a key of the daemon is never passed over");
}

#[test]
fn a_named_file_must_have_a_config_and_one_of_a_folder_need_not() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
    assert!(problems(service).contains("has no config; give a config, or a ConfigMap"));
    assert!(problems("replicas: 3\n").contains("unknown key"));
    for text in [service, "replicas: 3\n", "", "# Nothing.\n", "[a, b]", "---\n---\n"] {
        assert!(found(text, Choice::OfFolder).is_empty(), "{text}");
    }
    // A mistake is never a reason to pass a file over.
    for text in ["databases: {", "apiVersion: external-endpoints/v1\nkind: Config\ndatabses: []"] {
        assert!(found(text, Choice::OfFolder)[0].loaded.is_err(), "{text}");
    }
    let unreadable = Err(ReadError::Invalid("no".into()));
    let found = parse_all(Path::new("a"), unreadable, &options(), Choice::OfFolder);
    assert!(found[0].loaded.is_err());
    let found = parse_all(Path::new("a"), Ok(vec![0xff]), &options(), Choice::OfFolder);
    assert!(found[0].loaded.is_err());
}

#[test]
fn two_documents_without_a_manifest_stay_a_mistake() {
    assert!(problems(&format!("{GOOD}\n---\n{GOOD}\n")).contains("a second YAML document"));
}

#[test]
fn the_daemon_says_that_it_takes_no_manifest() {
    let (text, ..) = manifest(GOOD);
    let map = text.split("---\n").nth(1).unwrap();
    let error = parse("cm.yaml", map, &options()).unwrap_err().to_string();
    assert!(error.contains("this is a ConfigMap; give the path of the file"), "{error}");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test measures real time")]
fn thousands_of_documents_are_refused_or_read_soon() {
    let start = std::time::Instant::now();
    let (map, ..) = manifest(GOOD);
    let many = format!("{map}---\n").repeat(5_000);
    assert!(problems(&many).contains("validate at most 100 in one file"));
    let markers = "---\n".repeat(500_000) + &map;
    assert_eq!(named(&markers).len(), 1);
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

proptest! {
    #[test]
    fn no_file_makes_it_panic(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "---\n", "apiVersion: v1\n", "kind: ConfigMap\n", "data:\n", "  config.yaml: |\n",
                "  config.yaml: |2-\n", "    databases: []\n", "   ä: [\n", "\t", "  ", "items:\n",
                "- ", "config.yaml: >\n", "\"a\\n", "\"\n", "&a ", "*a\n", "\r\n", "#", "|\n",
                "kind: List\n", "databases:\n", "...\n", "%YAML 1.2\n", "\u{feff}", "? ",
            ]),
            0..30,
        ),
    ) {
        let text = parts.concat();
        let _ = named(&text);
        let _ = found(&text, Choice::OfFolder);
    }
}
