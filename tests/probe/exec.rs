//! The exec check: the environment of a command, the verdict on its end, and that no process of it
//! stays.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use external_endpoints::config::{CheckKind, ExecCheck, ValueSource};
use external_endpoints::health::Verdict;

use crate::fixtures::*;

async fn run(check: ExecCheck) -> Verdict {
    probe_once(CheckKind::Exec(check), PATIENT).await
}

fn shell(script: &str) -> ExecCheck {
    exec(&["/bin/sh", "-c", script])
}

/// Returns the processes with this word in their environment. A zombie has no environment.
pub(crate) fn marked(word: &str) -> Vec<i32> {
    let line = format!("MARK={}", of_this_run(word));
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let environment = std::fs::read(format!("/proc/{id}/environ")).ok()?;
        environment.split(|&byte| byte == 0).any(|one| one == line.as_bytes()).then_some(id)
    });
    processes.collect()
}

pub(crate) fn mark(word: &str, check: ExecCheck) -> ExecCheck {
    ExecCheck { env: vec![("MARK".into(), literal(&of_this_run(word)))], ..check }
}

/// Returns a mark that differs from the marks of other runs, which may have left processes behind.
fn of_this_run(word: &str) -> String {
    format!("{word}-{}", std::process::id())
}

#[tokio::test]
async fn the_exit_status_is_the_verdict_and_the_output_the_reason() {
    let table = [
        ("exit 0", pass()),
        ("echo noise; exit 0", pass()),
        ("exit 3", fail("exec: exit status 3")),
        ("echo refused >&2; exit 1", fail("exec: exit status 1: \"refused\"")),
        (
            "echo a; echo b >&2; printf 'c\\033[0m\\t\"'; exit 2",
            fail(r#"exec: exit status 2: "a\nb\nc\u{1b}[0m\t\"""#),
        ),
        ("kill -9 $$$$", fail("exec: killed by signal 9")),
        ("echo bye; kill -15 $$$$", fail("exec: killed by signal 15: \"bye\"")),
    ];
    for (script, expected) in table {
        assert_eq!(run(shell(script)).await, expected, "{script}");
    }
}

#[tokio::test]
async fn some_exit_statuses_are_inconclusive() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "exit 0").unwrap();
    let found = run(shell("mysqladmin-that-is-not-there ping")).await;
    let Verdict::Inconclusive(reason) = &found else { panic!("{found:?}") };
    assert!(reason.starts_with("exec: exit status 127, a command was not found: \""), "{reason}");
    assert!(reason.contains("mysqladmin-that-is-not-there"), "{reason}");
    let found = run(shell(plain.to_str().unwrap())).await;
    let Verdict::Inconclusive(reason) = &found else { panic!("{found:?}") };
    assert!(
        reason.starts_with("exec: exit status 126, a command is not executable: \""),
        "{reason}"
    );

    let naming = |script: &str| ExecCheck {
        inconclusive_statuses: vec![3..=3, 64..=78, 255..=255],
        ..shell(script)
    };
    let table = [
        ("exit 0", pass()),
        ("exit 2", fail("exec: exit status 2")),
        (
            "echo UNKNOWN - no data; exit 3",
            inconclusive("exec: exit status 3, one of inconclusiveStatuses: \"UNKNOWN - no data\""),
        ),
        ("exit 4", fail("exec: exit status 4")),
        ("exit 64", inconclusive("exec: exit status 64, one of inconclusiveStatuses")),
        ("exit 78", inconclusive("exec: exit status 78, one of inconclusiveStatuses")),
        ("exit 79", fail("exec: exit status 79")),
        ("exit 255", inconclusive("exec: exit status 255, one of inconclusiveStatuses")),
        ("exit 127", inconclusive("exec: exit status 127, a command was not found")),
        ("exit 128", fail("exec: exit status 128")),
        ("kill -3 $$$$", fail("exec: killed by signal 3")),
    ];
    for (script, expected) in table {
        assert_eq!(run(naming(script)).await, expected, "{script}");
    }
}

#[tokio::test]
async fn a_long_output_neither_blocks_nor_fills_the_reason() {
    let script = "i=0; while [ $i -lt 20000 ]; do \
         echo 'line after line of nothing'; i=$((i+1)); done; echo last words; exit 1";
    let Verdict::Fail(reason) = run(shell(script)).await else { panic!("passed") };
    assert!(reason.starts_with("exec: exit status 1: \"…"), "{reason}");
    assert!(reason.ends_with("nothing\\nlast words\""), "{reason}");
    assert!(reason.chars().count() < 230, "{reason}");
    let verdict = probe_once(CheckKind::Exec(exec(&["yes"])), SHORT).await;
    assert_eq!(verdict, fail("exec: the command did not exit in 500ms"));
}

#[tokio::test]
async fn the_environment_holds_only_the_named_variables() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, copy) = (folder.path().join("secret"), folder.path().join("copy"));
    std::fs::write(&secret, "hunter2\n").unwrap();
    let check = ExecCheck {
        env: vec![
            ("PGPASSWORD".into(), ValueSource::File(secret)),
            ("HOME".into(), literal("/tmp")),
        ],
        ..exec(&["cp", "/proc/self/environ", copy.to_str().unwrap()])
    };
    let environment = |path: &Path| -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.split_terminator('\0')
            .map(|line| line.split_once('=').unwrap())
            .map(|(k, v)| (k.into(), v.into()))
            .collect()
    };
    let mut expected = BTreeMap::from(
        [
            ("TARGET_IP", "127.0.0.1"),
            ("TARGET_NAME", "127.0.0.1"),
            ("TARGET_PORT", "5432"),
            ("SERVICE", "orders"),
            ("NAMESPACE", "prod"),
            ("PGPASSWORD", "hunter2"),
            ("HOME", "/tmp"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    assert_eq!(run(check.clone()).await, pass());
    assert_eq!(environment(&copy), expected);

    let mut named = target(LOCAL);
    named.hostname = Some("pg-1".into());
    named.name = Some("pg.corp.example".into());
    assert_eq!(prober_for(CheckKind::Exec(check), PATIENT, named).probe().await, pass());
    expected.insert("TARGET_HOST".into(), "pg-1".into());
    expected.insert("TARGET_NAME".into(), "pg.corp.example".into());
    assert_eq!(environment(&copy), expected);
}

#[tokio::test]
async fn references_in_the_command_are_expanded_without_a_shell() {
    let printed = [
        "$(TARGET_IP):$(TARGET_PORT)",
        "$(SERVICE).$(NAMESPACE)",
        "$$(SERVICE)",
        "$(TARGET_HOST)",
        "$HOME;*",
    ];
    let mut command = vec!["/bin/sh", "-c", "printf '%s|' \"$@\"; exit 1", "sh"];
    command.extend(printed);
    let reason =
        r#"exec: exit status 1: "127.0.0.1:5432|orders.prod|$(SERVICE)|$(TARGET_HOST)|$HOME;*|""#;
    assert_eq!(run(exec(&command)).await, fail(reason));
    // The program is expanded too.
    let check = ExecCheck {
        env: vec![("SHELL_TO_RUN".into(), literal("/bin/sh"))],
        ..exec(&["$(SHELL_TO_RUN)", "-c", "exit 4"])
    };
    assert_eq!(run(check).await, fail("exec: exit status 4"));
}

#[tokio::test]
async fn input_is_empty_and_the_folder_as_configured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let check = ExecCheck { working_directory: Some(path.clone()), ..shell("cat; pwd; exit 1") };
    assert_eq!(run(check).await, fail(format!("exec: exit status 1: \"{}\"", path.display())));
    // A relative program is found in that folder.
    std::os::unix::fs::symlink("/bin/false", path.join("check")).unwrap();
    let check = ExecCheck { working_directory: Some(path), ..exec(&["./check"]) };
    assert_eq!(run(check).await, fail("exec: exit status 1"));
}

#[tokio::test]
async fn a_command_inherits_no_signal_no_descriptor_and_no_group() {
    let prober = prober(CheckKind::Exec(mark("inherits", exec(&["sleep", "60"]))), PATIENT);
    let task = tokio::spawn(async move { prober.probe().await });
    eventually("it runs", || marked("inherits").len() == 1).await;
    let id = marked("inherits")[0];
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{id}/{name}")).unwrap();
    let status = read("status");
    let signals = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    };
    // A Rust program ignores SIGPIPE, and a database's client must not.
    let pipe = 1 << (rustix::process::Signal::PIPE.as_raw() - 1);
    assert_eq!((signals("SigBlk"), signals("SigIgn") & pipe), (0, 0), "{status}");
    // `7 (sleep) S parent group …`
    assert_eq!(read("stat").split(' ').nth(4).unwrap(), id.to_string());
    let mut own = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{id}/fd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // The parent of the tests may have left descriptors open for all to inherit.
        if name.parse::<u32>().unwrap() <= 2 || !stays_open(&name) {
            own.insert(name.clone(), std::fs::read_link(format!("/proc/{id}/fd/{name}")).unwrap());
        }
    }
    task.abort();
    assert_eq!(own.keys().collect::<Vec<_>>(), ["0", "1", "2"], "{own:?}");
    assert!(own["0"] == Path::new("/dev/null") && own["1"] == own["2"], "{own:?}");
}

/// Returns true if a command inherits this descriptor of the test process.
fn stays_open(name: &str) -> bool {
    let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{name}")) else {
        return false;
    };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i64::from_str_radix(flags.trim(), 8).unwrap() & 0o2_000_000 == 0
}

#[tokio::test]
async fn a_probe_dropped_at_any_moment_leaves_nothing() {
    let prober = prober(CheckKind::Exec(mark("any-moment", shell("sleep 60 & sleep 60"))), PATIENT);
    for micros in (0..3000).step_by(50) {
        // Before the thread has the command, while the program is being started, and after.
        let _ = tokio::time::timeout(Duration::from_micros(micros), prober.probe()).await;
    }
    eventually("all groups are gone", || marked("any-moment").is_empty()).await;
}

#[tokio::test]
async fn a_failed_start_is_inconclusive() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let plain = write("plain", "exit 0", 0o644);
    // Another process writes the file. If this one had it open for writing, a child of another test
    // would hold it too, between its fork and its exec, and the file would be busy.
    let source = write("source", "#!/no/such/interpreter\n", 0o755);
    let orphan = format!("{source}.copy");
    assert!(std::process::Command::new("cp").args([&source, &orphan]).status().unwrap().success());
    let here = folder.path().to_str().unwrap();
    let nowhere =
        ExecCheck { working_directory: Some("/no/such/folder".into()), ..shell("exit 0") };
    let unset = ValueSource::FromEnv("EXTERNAL_ENDPOINTS_UNSET".into());
    let missing = ValueSource::File("/no/such/file".into());
    let with =
        |value: ValueSource| ExecCheck { env: vec![("TOKEN".into(), value)], ..exec(&["true"]) };
    let table = [
        (exec(&["no-such-command-at-all"]), "command not found: no-such-command-at-all".into()),
        (exec(&["/no/such/program"]), "command not found: /no/such/program".into()),
        (exec(&[&plain]), format!("{plain} is not executable")),
        (exec(&[here]), format!("{here} is a directory")),
        (exec(&[&orphan]), format!("the interpreter of {orphan} is missing")),
        (nowhere, "workingDirectory /no/such/folder is not a directory".into()),
        (with(unset), "environment variable EXTERNAL_ENDPOINTS_UNSET is not set".into()),
        (with(missing), "cannot read /no/such/file: no such file".into()),
        (with(literal("a\0b")), "the value of TOKEN holds a NUL byte".into()),
    ];
    for (check, reason) in table {
        assert_eq!(run(check).await, inconclusive(format!("exec: {reason}")));
    }
}

#[tokio::test]
async fn no_secret_reaches_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "from-file-s3cret\n").unwrap();
    let path = std::env::var("PATH").unwrap();
    let check = ExecCheck {
        env: vec![
            ("ONE".into(), ValueSource::File(file)),
            ("TWO".into(), ValueSource::FromEnv("PATH".into())),
            ("THREE".into(), literal("literal-s3cret")),
        ],
        ..exec(&["/bin/sh", "-c", "echo \"$ONE,$TWO,$THREE,$1\"; exit 1", "sh", "$(ONE)"])
    };
    assert_eq!(run(check).await, fail("exec: exit status 1: \"***,***,***,***\""));
    // A program whose name is a secret is not quoted either.
    let check =
        ExecCheck { env: vec![("ONE".into(), literal("/no/s3cret"))], ..exec(&["$(ONE)", "x"]) };
    let verdict = run(check).await;
    assert_eq!(verdict, inconclusive("exec: command not found: $(ONE)"));
    assert!(!format!("{verdict:?}").contains(&path));
}

#[tokio::test]
async fn a_script_that_forks_and_ignores_signals_leaves_nothing() {
    let script = "trap '' TERM INT HUP; \
        for i in 1 2 3; do (trap '' TERM INT HUP; while :; do sleep 1; done) & done; \
        while :; do sleep 1; done";
    let verdict = probe_once(CheckKind::Exec(mark("forks", shell(script))), SHORT).await;
    assert_eq!(verdict, fail("exec: the command did not exit in 500ms"));
    eventually("the group is gone", || marked("forks").is_empty()).await;
}

#[tokio::test]
async fn a_dropped_probe_leaves_nothing() {
    let prober = prober(CheckKind::Exec(mark("dropped", shell("sleep 60 & sleep 60"))), PATIENT);
    let task = tokio::spawn(async move { prober.probe().await });
    eventually("it runs", || marked("dropped").len() >= 3).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    eventually("the group is gone", || marked("dropped").is_empty()).await;
}

#[tokio::test]
async fn the_rest_of_the_group_is_killed_and_not_waited_for() {
    let start = Instant::now();
    let leftovers = shell("sleep 60 & sleep 60 & echo started; exit 1");
    let verdict = run(mark("leftovers", leftovers)).await;
    assert_eq!(verdict, fail("exec: exit status 1: \"started\""));
    eventually("the group is gone", || marked("leftovers").is_empty()).await;

    // A process that left the group and holds the pipe open can't be killed, but blocks nothing.
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("started");
    let script = format!(
        "setsid sh -c 'echo $$$$ > {0}; exec sleep 60' & while [ ! -s {0} ]; do :; done; \
         echo done; exit 1",
        started.display()
    );
    let check =
        ExecCheck { env: vec![("PATH".into(), literal("/usr/bin:/bin"))], ..shell(&script) };
    assert_eq!(run(check).await, fail("exec: exit status 1: \"done\""));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let escaped: i32 = std::fs::read_to_string(started).unwrap().trim().parse().unwrap();
    let escaped = rustix::process::Pid::from_raw(escaped).unwrap();
    rustix::process::kill_process(escaped, rustix::process::Signal::KILL).unwrap();
}
