//! The error of a call to the API: its kind for code that decides by it, and a message for people
//! that says what to do.
//!
//! | the API's answer                          | kind                   |
//! | ---                                       | ---                    |
//! | none in time, or the call failed          | `Unavailable`          |
//! | 400, 422                                  | `Invalid`              |
//! | 401                                       | `Unauthorized`         |
//! | 403, as the namespace is being terminated | `NamespaceTerminating` |
//! | 403                                       | `Forbidden`            |
//! | 404 for the namespace                     | `NamespaceNotFound`    |
//! | 404                                       | `NotFound`             |
//! | 409                                       | `Conflict`             |
//! | any other                                 | `Unavailable`          |

use std::error::Error;
use std::fmt;
use std::time::Duration;

use kube::client::AuthError;
use kube::core::Status;

use super::Call;

/// The longest time that the API may have a caller wait: a dead address is published meanwhile.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// The error of a call to the API.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub kind: ErrorKind,
    pub message: String,
    /// The time for which the API asks to be left alone; zero if it does not say.
    pub retry_after: Duration,
    /// The error of the client; none for a call that was not answered in time.
    source: Option<kube::Error>,
}

/// The kind of an error, as the table above has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The object is not, or no longer, what the call took it to be.
    Conflict,
    NotFound,
    NamespaceNotFound,
    NamespaceTerminating,
    Forbidden,
    Unauthorized,
    Invalid,
    Unavailable,
}

impl ApiError {
    /// Creates the error of a call that the client or the API refused.
    pub(crate) fn new(error: kube::Error, call: Call<'_>) -> Self {
        let (kind, message) = match &error {
            kube::Error::Api(status) => (kind(status), message(status, call)),
            error => (ErrorKind::Unavailable, format!("{call}: {}", error_message(error))),
        };
        let retry_after = retry_after(&error).min(MAX_RETRY_AFTER);
        Self { kind, message, retry_after, source: Some(error) }
    }

    /// Creates the error of a call that was not answered within this time.
    pub(crate) fn timed_out(call: Call<'_>, limit: Duration) -> Self {
        Self::unavailable(format!("{call}: no answer in {}", humantime::format_duration(limit)))
    }

    /// Creates the error of a call that came to nothing, with this message.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let (kind, message) = (ErrorKind::Unavailable, message.into());
        Self { kind, message, retry_after: Duration::ZERO, source: None }
    }

    /// Returns whether there was no answer at all.
    pub(crate) fn is_unanswered(&self) -> bool {
        !matches!(self.source, Some(kube::Error::Api(_)))
    }

    /// Returns the status code of the API's answer; none if there was no answer.
    pub(crate) fn code(&self) -> Option<u16> {
        match &self.source {
            Some(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Returns the message of the API's answer, without what this daemon says about it.
    pub(crate) fn reply(&self) -> &str {
        match &self.source {
            Some(kube::Error::Api(status)) => reply(status),
            _ => &self.message,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The message has the cause already, so there is no source that would repeat it.
impl Error for ApiError {}

fn reply(status: &Status) -> &str {
    if status.message.is_empty() { &status.reason } else { &status.message }
}

fn kind(status: &Status) -> ErrorKind {
    match status.code {
        400 | 422 => ErrorKind::Invalid,
        401 => ErrorKind::Unauthorized,
        403 if reply(status).contains("being terminated") => ErrorKind::NamespaceTerminating,
        403 => ErrorKind::Forbidden,
        404 if reply(status).starts_with("namespaces ") => ErrorKind::NamespaceNotFound,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        _ => ErrorKind::Unavailable,
    }
}

fn message(status: &Status, call: Call<'_>) -> String {
    let (reply, code) = (reply(status), status.code);
    let Call { verb, plural, namespace, .. } = call;
    match kind(status) {
        ErrorKind::NamespaceTerminating => format!("namespace {namespace} is being deleted"),
        ErrorKind::NamespaceNotFound => {
            format!("there is no namespace {namespace}; create it, and the Service in it")
        }
        ErrorKind::Forbidden => call.forbidden(reply),
        ErrorKind::Invalid => {
            format!("the API refuses to {verb} {plural} in {namespace}: {reply}")
        }
        ErrorKind::Unauthorized => format!(
            "{call}: the API does not accept the credentials of the ServiceAccount or the \
             kubeconfig: {reply}"
        ),
        ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::Unavailable => {
            format!("{call}: the API answered {code}: {reply}")
        }
    }
}

fn retry_after(error: &kube::Error) -> Duration {
    let seconds = match error {
        kube::Error::Api(status) => {
            status.details.as_ref().map_or(0, |details| details.retry_after_seconds)
        }
        _ => 0,
    };
    Duration::from_secs(seconds.into())
}

/// Returns the message of the innermost cause: `connection refused` rather than `service error`.
pub(crate) fn error_message(error: &kube::Error) -> String {
    let mut cause: &(dyn Error + 'static) = error;
    loop {
        if let Some(AuthError::AuthExecRun { out, .. }) = cause.downcast_ref() {
            // Its arguments and its output may hold a secret.
            return format!(
                "the command that the kubeconfig has for credentials ended with {}",
                out.status
            );
        }
        if let Some(AuthError::AuthExecStart(error)) = cause.downcast_ref() {
            return format!(
                "the command that the kubeconfig has for credentials does not start: {error}"
            );
        }
        match cause.source() {
            Some(inner) => cause = inner,
            None => break,
        }
    }
    let text = cause.to_string();
    match text.as_str() {
        // The client's message when it could not connect in time.
        "deadline has elapsed" => "no connection in the time there is for one".to_owned(),
        closed if closed.contains("close_notify") => "the connection was closed".to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, message: &str) -> ApiError {
        let status = Status::failure(message, "Reason").with_code(code);
        let call =
            Call { verb: "patch", plural: "endpoints", namespace: "prod", name: Some("mysql") };
        ApiError::new(kube::Error::Api(status.boxed()), call)
    }

    #[test]
    fn each_answer_has_its_kind() {
        let terminating =
            "unable to create new content in namespace prod because it is being terminated";
        let table = [
            (400, "x", ErrorKind::Invalid),
            (401, "x", ErrorKind::Unauthorized),
            (403, "x", ErrorKind::Forbidden),
            (403, terminating, ErrorKind::NamespaceTerminating),
            (404, "x", ErrorKind::NotFound),
            (404, "namespaces \"prod\" not found", ErrorKind::NamespaceNotFound),
            (409, "x", ErrorKind::Conflict),
            (410, "x", ErrorKind::Unavailable),
            (422, "x", ErrorKind::Invalid),
            (429, "x", ErrorKind::Unavailable),
            (500, "x", ErrorKind::Unavailable),
            (503, "x", ErrorKind::Unavailable),
            (504, "x", ErrorKind::Unavailable),
        ];
        for (code, message, kind) in table {
            let error = error(code, message);
            assert_eq!((error.kind, error.reply()), (kind, message), "{code}");
            assert!(error.source().is_none(), "its cause is in the message");
        }
    }

    #[test]
    fn messages_name_the_call_and_the_answer() {
        let table = [
            (error(500, "x"), "patch endpoints in prod: the API answered 500: x"),
            (error(500, ""), "patch endpoints in prod: the API answered 500: Reason"),
            (error(422, "x"), "the API refuses to patch endpoints in prod: x"),
        ];
        for (error, message) in table {
            assert_eq!(error.to_string(), message);
        }
        let call = Call { verb: "list", plural: "services", namespace: "prod", name: None };
        let late = ApiError::timed_out(call, Duration::from_secs(5));
        assert_eq!(late.message, "list services in prod: no answer in 5s");
        assert_eq!((late.kind, late.reply()), (ErrorKind::Unavailable, &*late.message));
    }

    #[test]
    fn a_missing_command_for_credentials_is_called_so() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = kube::Error::Auth(AuthError::AuthExecStart(missing));
        let message = error_message(&error);
        assert!(message.starts_with("the command that the kubeconfig has"), "{message}");
    }

    #[test]
    fn the_api_may_have_a_caller_wait_but_not_for_long() {
        for (asked, granted) in [(0, 0), (7, 7), (60, 10)] {
            let details = serde_json::json!({"retryAfterSeconds": asked});
            let status = serde_json::json!({"message": "busy", "code": 429, "details": details});
            let status: Status = serde_json::from_value(status).expect("a Status");
            let call = Call { verb: "list", plural: "services", namespace: "prod", name: None };
            let error = ApiError::new(kube::Error::Api(status.boxed()), call);
            assert_eq!(error.retry_after, Duration::from_secs(granted));
        }
    }
}
