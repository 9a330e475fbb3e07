//! The names by which a replica takes part in the election.

use std::env;
use std::fs;
use std::io;

use tracing::warn;

/// The environment variable with the UID of the Pod, from the downward API.
const POD_UID: &str = "POD_UID";

/// The greatest length of a UID. Kubernetes' own have 36 characters, and those of static Pods 32.
const MAX_UID_LENGTH: usize = 64;

/// The names of this replica and of this process.
pub(super) struct Identity {
    /// The holder in the Lease: the host's name, which is the Pod's, and the Pod's UID. It stays
    /// the same when the container is restarted. Without the UID of the Pod, the name of the
    /// process takes its place.
    pub replica: String,
    /// A name that no other process has, not even under the same identity.
    pub process: String,
}

impl Identity {
    /// Reads the names from the kernel and the environment.
    pub(super) fn for_this_process() -> io::Result<Self> {
        let host = read("/proc/sys/kernel/hostname")?;
        let process = read("/proc/sys/kernel/random/uuid")?;
        let pod = env::var_os(POD_UID).filter(|uid| !uid.is_empty());
        let uid = pod.and_then(|uid| {
            let uid = uid.to_string_lossy();
            let good = is_uid(&uid);
            if !good {
                warn!(
                    "POD_UID is not the UID of a Pod and is not used: set it by `valueFrom: \
                     {{fieldRef: {{fieldPath: metadata.uid}}}}`, or leave it out"
                );
            }
            good.then(|| uid.into_owned())
        });
        Ok(Self { replica: format!("{host}_{}", uid.as_ref().unwrap_or(&process)), process })
    }
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim().to_owned())
}

/// Distinguishes a UID from a mistake such as `$(POD_UID)`, which all replicas would share.
fn is_uid(text: &str) -> bool {
    let hexadecimal = |c: char| c.is_ascii_hexdigit() || c == '-';
    (8..=MAX_UID_LENGTH).contains(&text.len()) && text.chars().all(hexadecimal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_not_taken_for_a_uid() {
        assert!(is_uid("3f2b8c1e-7d4a-4c0e-9b1f-2a6d5e8c7f90"));
        assert!(is_uid("0a1b2c3d4e5f60718293a4b5c6d7e8f9"), "of a static Pod");
        for text in
            ["", "$(POD_UID)", "metadata.uid", "pod uid", "1234567", "\u{a0}", &"a".repeat(65)]
        {
            assert!(!is_uid(text), "{text:?}");
        }
    }
}
