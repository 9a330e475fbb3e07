//! The user and the password that several kinds of check log in with.

use crate::config::language::spanned::Field;
use crate::config::language::value::ValueSource;
use crate::config::problem::Collector;

/// The longest user, in bytes. Servers have 128 at most, and close when they get much more.
pub(crate) const MAX_USER_LENGTH: usize = 1 << 10;

/// The longest password, in bytes. Tokens of clouds have 2 KiB. Redis closes when it gets more than
/// 16 KiB.
pub(crate) const MAX_PASSWORD_LENGTH: usize = 8 << 10;

/// Reports a user and a password that no server has.
pub(super) fn check(
    user: &Field<ValueSource>,
    password: &Field<ValueSource>,
    problems: &mut Collector,
) {
    if let (Some(given), Some(text)) = (user.given(), literal(user)) {
        if text.is_empty() {
            problems.error_at(&given.location, "this text is empty; write the name of a user");
        } else if text.len() > MAX_USER_LENGTH {
            problems.error_at(&given.location, "no user has over 1 KiB; write a shorter one");
        }
    }
    if let (Some(given), Some(text)) = (password.given(), literal(password))
        && text.len() > MAX_PASSWORD_LENGTH
    {
        problems.error_at(&given.location, "no password has over 8 KiB; write a shorter one");
    }
}

/// Reports a password that is empty, for a server on which no user can have that.
pub(super) fn check_not_empty(password: &Field<ValueSource>, problems: &mut Collector) {
    if let (Some(given), Some("")) = (password.given(), literal(password)) {
        let message = "no user has an empty password; write the password, or remove this key";
        problems.error_at(&given.location, message);
    }
}

fn literal(value: &Field<ValueSource>) -> Option<&str> {
    match value.value() {
        Some(ValueSource::Literal(text)) => Some(text),
        _ => None,
    }
}
