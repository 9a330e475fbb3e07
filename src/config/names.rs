//! The names of Kubernetes objects, as a config and the command line give them.

use super::problem::quote;

/// Checks a label of RFC 1123. The error says what to write instead.
pub(crate) fn validate_label(name: &str, what: &str) -> Result<(), String> {
    let is_allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    if name.len() > 63 {
        return Err(format!(
            "{} has {} characters; {what} has at most 63",
            quote(name),
            name.len()
        ));
    }
    if !name.chars().all(is_allowed) || name.starts_with('-') || name.ends_with('-') {
        return Err(format!(
            "{} is not {what}; write lower-case letters, digits and `-`, with a letter or digit at \
             both ends",
            quote(name)
        ));
    }
    Ok(())
}

/// Checks the name of a namespace.
pub fn validate_namespace(name: &str) -> Result<(), String> {
    validate_label(name, "a DNS label")
}

/// Checks the name of a Service, which is a label of RFC 1035.
pub fn validate_service(name: &str) -> Result<(), String> {
    validate_label(name, "the name of a Service")?;
    if name.starts_with(|char: char| char.is_ascii_digit()) {
        return Err(format!(
            "{} begins with a digit; write a name that begins with a letter",
            quote(name)
        ));
    }
    Ok(())
}

/// Checks the name of an object, such as `a Lease`: a list of labels with dots between them.
pub fn validate_object(name: &str, what: &str) -> Result<(), String> {
    if name.len() > 253 {
        let (shown, length) = (quote(name), name.len());
        return Err(format!("{shown} has {length} characters; the name of {what} has at most 253"));
    }
    if name.split('.').any(|label| label.is_empty() || validate_label(label, "").is_err()) {
        return Err(format!(
            "{} is not the name of {what}; write lower-case letters, digits, `-` and `.`, with a \
             letter or digit at both ends",
            quote(name)
        ));
    }
    Ok(())
}
