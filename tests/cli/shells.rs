//! `completion` and `man`: the scripts of all shells, and the manual pages.

use std::process::Command;

use crate::run;

#[test]
fn each_shell_gets_a_script_with_all_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (status, script, stderr) = run(&["completion", shell]);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{shell}");
        for word in ["validate", "failback", "freeze-timeout"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let (status, _, stderr) = run(&["completion", "dos"]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("bash, elvish, fish, powershell, zsh"), "{stderr}");
}

#[test]
fn bash_completes_a_command_by_its_script() {
    let ask = "source <(\"$1\" completion bash); COMP_WORDS=(external-endpoints va); COMP_CWORD=1; \
               _external__endpoints external-endpoints va external-endpoints; echo ${COMPREPLY[@]}";
    let program = env!("CARGO_BIN_EXE_external-endpoints");
    let output = Command::new("bash").args(["-c", ask, "bash", program]).output().expect("bash");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "validate\n", "{output:?}");
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let (status, page, stderr) = run(&["man"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(page.contains(".TH external-endpoints 1"), "{page}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (status, paths, stderr) = run(&["man", folder.path().to_str().expect("UTF-8")]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    for path in paths.lines() {
        let page = std::fs::read_to_string(path).expect("a page");
        assert!(page.contains(".SH SYNOPSIS"), "{path}: {page}");
    }
    for name in ["external-endpoints.1", "external-endpoints-run.1"] {
        assert!(paths.lines().any(|path| path.ends_with(&format!("/{name}"))), "{paths}");
    }
}

#[test]
fn pages_are_written_only_into_a_folder_that_exists() {
    let (status, stdout, stderr) = run(&["man", "/nowhere/man1"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert_eq!(stderr, "external-endpoints: /nowhere/man1 is no folder; create it first\n");
}
