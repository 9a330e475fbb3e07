//! The messages of the config: each mistake with its text, its place and without secrets.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use external_endpoints::config::load;
use unicode_width::UnicodeWidthStr;

use super::{assert_snapshot, bad, files, good, options, read};

/// Compares the message for each mistake in `bad/` with its snapshot.
#[test]
fn every_mistake_has_its_message() {
    let mut names = BTreeSet::new();
    for path in files("tests/config/bad") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut options = options();
        if name == "allow-cidr" {
            options.allow_cidr =
                vec!["10.20.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        }
        let problems = load(&path, &options).expect_err(&name);
        let shown = problems.report();
        assert!(!shown.contains("hunter"), "{name} shows a secret:\n{shown}");
        assert!(!format!("{problems:?}").contains("hunter"), "{name} debugs a secret");
        assert_snapshot(&name, &shown);
        names.insert(format!("{name}.snap"));
    }
    for path in files("tests/config/snapshots") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            names.contains(&name) || name.starts_with("good-"),
            "{name} is the snapshot of no file in bad/"
        );
    }
}

#[test]
fn unreadable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let problem = |path: &Path| load(path, &options()).expect_err("no file").to_string();

    let shown = problem(Path::new("tests/config"));
    assert_eq!(shown, "tests/config: is a directory; give the path of a file");

    let missing = folder.path().join("missing.yaml");
    assert_eq!(
        problem(&missing),
        format!("{}: there is no such file; give the path of the config", missing.display())
    );

    // A plain open for reading would wait for a writer, which never comes.
    let fifo = folder.path().join("fifo.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let (sender, receiver) = std::sync::mpsc::channel();
    let path = fifo.clone();
    std::thread::spawn(move || {
        sender.send(load(&path, &options()).expect_err("no file").to_string())
    });
    let shown = receiver.recv_timeout(Duration::from_secs(20)).expect("a FIFO is rejected at once");
    assert_eq!(shown, format!("{}: is a FIFO; give the path of a file", fifo.display()));

    // A file that even root can open but not read.
    let shown = problem(Path::new("/proc/self/mem"));
    assert!(shown.starts_with("/proc/self/mem: can't be read: Input/output error"), "{shown}");

    let large = folder.path().join("large.yaml");
    fs::write(&large, "# x\n".repeat(10 * 1024 * 1024 / 4) + "\n").unwrap();
    let shown = problem(&large);
    assert!(shown.contains("is larger than 10 MiB; "), "{shown}");

    let just_fits = folder.path().join("fits.yaml");
    fs::write(&just_fits, "# x\n".repeat(10 * 1024 * 1024 / 4)).unwrap();
    assert!(problem(&just_fits).contains("has only comments"));
}

#[test]
fn a_file_from_windows_is_read() {
    let spec = good(
        "\u{feff}databases:\r\n- service: a\r\n  port: 1\r\n  addresses: [10.0.0.1]\r\n  check: \
        {tcp: {}}\r\n",
    );
    assert_eq!(spec.databases[0].id.to_string(), "own/a");
    assert!(
        bad("\u{feff}databases:\r\n- service: A\r\n")
            .contains("db.yaml:2:12: databases[0].service: `A`")
    );
}

#[test]
fn empty_documents_are_ignored() {
    let database = "databases:\n- {service: a, port: 1, addresses: [10.0.0.1], check: {tcp: {}}}\n";
    let nothing = ["", "---\n", "---\n# nothing\n---\n", "--- ~\n---\n"];
    for before in nothing {
        for after in ["", "---\n", "---", "...\n", "---\n# nothing\n---\n...\n", "---\n---\n"] {
            let text = format!("{before}{database}{after}");
            assert_eq!(good(&text).databases.len(), 1, "{text}");
            let problems =
                bad(&format!("{text}{}---\n{database}", if after == "---" { "\n" } else { "" }));
            assert!(
                problems.contains("a second YAML document begins here; write all databases"),
                "{text}: {problems}"
            );
        }
    }
}

#[test]
fn problems_can_be_used_by_a_program() {
    let problems =
        read("databases:\n- {service: a, port: 0, addresses: [], check: {tcp: {}}}\n").unwrap_err();
    assert_eq!((problems.len(), problems.is_empty(), problems.file()), (2, false, "db.yaml"));
    let first = problems.iter().next().unwrap();
    assert_eq!(first.position.map(|at| (at.line, at.column)), Some((2, 22)));
    assert_eq!(first.path, "databases[0].port");
    assert_eq!(first.message, "0 is not a port; write a number from 1 to 65535");
    assert_eq!(problems.to_string().lines().count(), 2);
    assert_eq!(problems.summary().lines().count(), 2);
    assert_eq!(problems.report().lines().count(), 6);
}

#[test]
fn a_flood_of_problems_is_cut_but_counted() {
    let text = format!("databases:\n{}", "- 5\n".repeat(5000));
    let problems = read(&text).unwrap_err();
    assert_eq!(problems.len(), 5000);
    assert_eq!(problems.iter().count(), 100);
    assert!(problems.to_string().ends_with("db.yaml: and 4900 more problems"));
}

/// Asserts that the caret is under this text, and that the excerpt fits a terminal.
#[track_caller]
fn caret_is_under(yaml: &str, text: &str) {
    let shown = read(yaml).expect_err("a bad config").report();
    let [_, line, caret] = shown.lines().collect::<Vec<_>>()[..] else { panic!("{shown}") };
    assert!(line.width() <= 80 && caret.width() <= 80, "{shown}");
    let before = line.split(text).next().unwrap_or_default();
    assert_ne!(before, line, "{shown}");
    assert_eq!(before.width() + 1, caret.width(), "{shown}");
}

#[test]
fn the_caret_is_right_on_a_narrow_terminal() {
    let with = |before: &str, after: &str| {
        format!(
            "databases: [{{service: a, port: 1, check: {{tcp: {{expect: \"{before}\"}}}}, \
            addresses: [NO{after}]}}]"
        )
    };
    for length in 0..200 {
        for char in ["x", "中", "e\u{301}", "\u{202e}", "😀"] {
            let long = char.repeat(length);
            caret_is_under(&with(&format!("x{long}"), ""), "NO");
            caret_is_under(&with("x", &format!(" # {long}\n")), "NO");
        }
    }
    let far = format!("{}{}", "\n".repeat(12344), with(&"中".repeat(5000), ""));
    caret_is_under(&far, "NO");
}

#[test]
fn more_addresses_than_kubernetes_mirrors_are_rejected() {
    let with = |count: usize, publish: &str| {
        let addresses: Vec<String> =
            (0..count).map(|i| format!("10.0.{}.{}", i / 250, i % 250 + 1)).collect();
        let addresses = addresses.join(",");
        read(&format!(
            "databases: [{{service: a, port: 1, addresses: [{addresses}], check: {{tcp: {{}}}}, \
            publish: {publish}}}]"
        ))
    };
    for (count, publish) in [(1000, "endpoints"), (1001, "slices"), (1001, "both")] {
        assert_eq!(
            with(count, publish).expect("a good config").warnings.to_string(),
            "",
            "{count} {publish}"
        );
    }
    let error = with(1001, "endpoints").expect_err("too many").to_string();
    assert!(
        error.contains(
            "databases[0].addresses: 1001 addresses; Kubernetes copies only 1000 of them"
        ),
        "{error}"
    );
    assert!(error.ends_with("add `publish: slices` to the database"), "{error}");
}

#[test]
fn an_escape_without_double_quotes_is_a_warning() {
    let warnings = |check: &str| {
        let text = format!(
            "databases:\n- {{service: a, port: 1, addresses: [10.0.0.1], check: {{{check}}}}}\n"
        );
        read(&text).unwrap_or_else(|problems| panic!("{problems}")).warnings
    };
    for send in [
        r"'AUTH hunter2\r\n'",
        r"AUTH hunter2\n",
        r"'hunter2\x0A'",
        r"'hunter2\u000a'",
        r"'hunter2\0'",
        r"'\\r'",
    ] {
        let warnings = warnings(&format!("tcp: {{send: {send}}}"));
        assert_eq!(warnings.len(), 1, "{send}: {warnings}");
        let shown = warnings.report();
        assert!(
            shown.contains("put the text in double quotes") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
    for send in [
        r#""PING\r\n""#,
        r#""a\\r""#,
        r"'DOMAIN\user'",
        r"'\xzz'",
        r"'\'",
        "{file: '/a\\n'}",
        r#"{hex: "5c"}"#,
    ] {
        let warnings = warnings(&format!("tcp: {{send: {send}}}"));
        assert!(warnings.is_empty(), "{send}: {warnings}");
    }
    assert!(warnings(r"http: {headers: {A: 'DOMAIN\name'}}").is_empty());
    assert!(warnings(r"exec: {command: [printf, 'a\n'], env: {A: 'a\n'}}").is_empty());
}
