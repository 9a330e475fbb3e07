//! The kubeconfig's files, read with the limits of config files: neither an endless file nor a FIFO
//! stops a command.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kube::config::{AuthInfo, Cluster, Kubeconfig, KubeconfigError};

use crate::config::{self, ReadError};

/// The reason why there is no kubeconfig.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileError {
    /// The file does not exist. The home directory may be unknown, too.
    NotFound(Option<PathBuf>),
    /// The file can't be used.
    Invalid(String),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(Some(path)) => write!(f, "there is no kubeconfig {}", path.display()),
            Self::NotFound(None) => f.write_str("there is no kubeconfig"),
            Self::Invalid(error) => f.write_str(error),
        }
    }
}

/// Reads the kubeconfig: this file, else those of `KUBECONFIG`, else `~/.kube/config`.
pub(super) fn read(file: Option<&Path>) -> Result<Kubeconfig, FileError> {
    let of_environment = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let paths: Vec<PathBuf> = match file {
        Some(file) => vec![file.to_owned()],
        None => std::env::split_paths(&of_environment)
            .filter(|path| !path.as_os_str().is_empty())
            .collect(),
    };
    if paths.is_empty() {
        let home = std::env::home_dir().ok_or(FileError::NotFound(None))?;
        return read_one(&home.join(".kube").join("config"));
    }
    read_all(&paths)
}

/// Reads and merges files. The first one that sets a value counts.
fn read_all(paths: &[PathBuf]) -> Result<Kubeconfig, FileError> {
    paths.iter().try_fold(Kubeconfig::default(), |merged, path| {
        merged.merge(read_one(path)?).map_err(|error| invalid(path, &error))
    })
}

fn read_one(path: &Path) -> Result<Kubeconfig, FileError> {
    if let Err(error) = std::fs::metadata(path)
        && error.kind() == ErrorKind::NotFound
    {
        return Err(FileError::NotFound(Some(path.to_owned())));
    }
    let bytes = read_bounded(path).map_err(|error| {
        FileError::Invalid(format!("the kubeconfig {} {error}", path.display()))
    })?;
    // The client resolves the relative paths of a file. A file that the parent process opened, as
    // a shell does for `<(…)`, can be read only once and has no folder.
    if config::is_inherited(path) {
        let text = String::from_utf8_lossy(&bytes);
        return Kubeconfig::from_yaml(&text).map_err(|error| invalid(path, &error));
    }
    Kubeconfig::read_from(path).map_err(|error| invalid(path, &error))
}

fn invalid(path: &Path, error: &KubeconfigError) -> FileError {
    FileError::Invalid(format!("the kubeconfig {}: {error}", path.display()))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    config::read_file(path).map_err(|error| match error {
        ReadError::TooLarge => "is larger than 10 MiB; give the path of a kubeconfig".to_owned(),
        error => error.to_string(),
    })
}

/// Checks that the files which a context names can be read without waiting and without end. A file
/// that does not exist is left to the client, whose error names it.
pub(super) fn check_named_files(
    kubeconfig: &Kubeconfig,
    context: Option<&str>,
) -> Result<(), String> {
    let Some(name) = context.or(kubeconfig.current_context.as_deref()) else { return Ok(()) };
    let mut contexts = kubeconfig.contexts.iter().filter(|it| it.name == name);
    let Some(context) = contexts.next().and_then(|it| it.context.as_ref()) else { return Ok(()) };
    let clusters = kubeconfig.clusters.iter().filter(|it| it.name == context.cluster);
    let of_cluster = |it: &Cluster| [it.certificate_authority.clone()];
    let users = kubeconfig.auth_infos.iter().filter(|it| Some(&it.name) == context.user.as_ref());
    let of_user = |it: &AuthInfo| {
        [it.client_certificate.clone(), it.client_key.clone(), it.token_file.clone()]
    };
    let of_clusters = clusters.filter_map(|it| it.cluster.as_ref()).flat_map(of_cluster);
    let of_users = users.filter_map(|it| it.auth_info.as_ref()).flat_map(of_user);
    for file in of_clusters.chain(of_users).flatten().map(PathBuf::from) {
        if file.exists() {
            let of_kubeconfig = || format!("the file {} of the kubeconfig", file.display());
            read_bounded(&file).map_err(|error| format!("{} {error}", of_kubeconfig()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(name: &str, namespace: &str) -> String {
        format!(
            "contexts: [{{name: {name}, context: {{cluster: c, namespace: {namespace}, user: u}}}}]"
        )
    }

    #[test]
    fn endless_files_are_rejected_and_several_are_merged() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let first = write("first", &format!("{}\ncurrent-context: b", context("a", "prod")));
        let second = write("second", &context("b", "test"));
        let merged = read_all(&[first.clone(), second]).expect("a kubeconfig");
        let names: Vec<&str> = merged.contexts.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(
            (names.as_slice(), merged.current_context.as_deref()),
            (&["a", "b"][..], Some("b"))
        );

        let zero = PathBuf::from("/dev/zero");
        let error = read_all(&[first.clone(), zero.clone()]).expect_err("a device");
        let text = "the kubeconfig /dev/zero is a device; give the path of a file";
        assert_eq!(error.to_string(), text);
        assert_eq!(read(Some(&zero)).expect_err("a device"), error);

        let large = folder.path().join("large");
        let file = std::fs::File::create(&large).expect("a file");
        file.set_len(11 << 20).expect("a sparse file");
        let error = read(Some(&large)).expect_err("a large file").to_string();
        assert!(error.contains("is larger than 10 MiB; give the path of a kubeconfig"), "{error}");

        let missing = PathBuf::from("/nowhere/kubeconfig");
        let error = read_all(&[first, missing.clone()]).expect_err("a missing file");
        assert_eq!(error, FileError::NotFound(Some(missing)));
    }

    #[test]
    fn named_files_of_the_chosen_context_are_checked() {
        let text = format!(
            "{}\ncurrent-context: a\nclusters: [{{name: c, cluster: {{certificate-authority: \
             /nowhere}}}}]\nusers: [{{name: u, user: {{tokenFile: /dev/zero}}}}]",
            context("a", "prod")
        );
        let kubeconfig = Kubeconfig::from_yaml(&text).expect("a kubeconfig");
        let expected = "the file /dev/zero of the kubeconfig is a device; give the path of a file";
        assert_eq!(check_named_files(&kubeconfig, None), Err(expected.to_owned()));
        assert_eq!(check_named_files(&kubeconfig, Some("other")), Ok(()));
    }
}
