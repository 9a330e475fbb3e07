//! The notes of a decision, as sentences.

use super::*;

#[test]
fn notes_compare_by_kind_and_read_as_sentences() {
    let [one, other] = [1, 2].map(|last| member(last).ip);
    let kept = |ips: &[IpAddr]| PolicyNote::KeptByFreeze { kept: ips.to_vec() };
    let inconclusive = |ips: &[IpAddr]| PolicyNote::ChecksInconclusive {
        ips: ips.to_vec(),
        reason: "exec: no program".into(),
    };
    assert!(
        kept(&[one]).same_kind(&kept(&[other])) && !kept(&[one]).same_kind(&inconclusive(&[one]))
    );
    let words = |note: PolicyNote| note.to_string();
    assert!(words(kept(&[one])).starts_with("198.51.100.1 stays: "));
    assert!(words(kept(&[one, other])).starts_with("198.51.100.1, 198.51.100.2 stay: "));
    assert!(words(inconclusive(&[one])).contains(
        "the checks of 198.51.100.1 have been inconclusive for over 1m (exec: no program); it stays"
    ));
    assert!(words(inconclusive(&[one, other])).contains("; they stay published"));
    let refused = |ips: &[IpAddr]| PolicyNote::LoginRefused {
        ips: ips.to_vec(),
        reason: "auth: refused".into(),
    };
    assert_eq!(
        words(refused(&[one])),
        "the checks of 198.51.100.1 cannot log in (auth: refused); its health stays as it is"
    );
    assert!(words(refused(&[one, other])).contains("; their health"));
    let others = vec![(one, "role: replica, not primary".into()), (other, "role: x".into())];
    assert_eq!(
        words(PolicyNote::RoleMissing { others }),
        "no address has the role that its check asks for: 198.51.100.1 (role: replica, not \
         primary), 198.51.100.2 (role: x)"
    );
}
