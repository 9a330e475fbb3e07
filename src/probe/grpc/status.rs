//! The status at the end of a gRPC call, and the verdict on it.

use hyper::header::HeaderMap;

use crate::health::Verdict;
use crate::probe::phase::{Phase, ProbeResult};
use crate::probe::server_text::{Secrets, quote_server};

/// The names of the statuses, by their number.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Checks the status in the trailers, or in the head of an answer without a body.
pub(super) fn check(trailers: &HeaderMap) -> ProbeResult<()> {
    let Some(status) = trailers.get("grpc-status") else {
        return Err(Phase::Grpc.fail("the answer has no grpc-status"));
    };
    let number = status.to_str().ok().and_then(|status| status.parse::<usize>().ok());
    let Some(number) = number else {
        let shown = quote_server(status.as_bytes(), &Secrets::NONE);
        return Err(Phase::Grpc.fail(format_args!("the answer has the grpc-status {shown}")));
    };
    let Some(&name) = NAMES.get(number) else {
        return Err(Phase::Grpc.fail(format_args!("status {number}")));
    };
    if name == "OK" {
        return Ok(());
    }
    let message = trailers.get("grpc-message").map(|message| decode(message.as_bytes()));
    Err(verdict(name, message.as_deref().unwrap_or_default()))
}

fn verdict(name: &str, message: &[u8]) -> Verdict {
    match name {
        "UNIMPLEMENTED" => Phase::Grpc.fail("UNIMPLEMENTED: no health service"),
        // No text of the server is shown: it may be about the one who asks.
        "UNAUTHENTICATED" | "PERMISSION_DENIED" => Phase::Auth.inconclusive(format_args!(
            "the server asks for credentials ({name}), which a `grpc` check has none of"
        )),
        _ if message.is_empty() => Phase::Grpc.fail(name),
        _ => Phase::Grpc.fail(format_args!("{name} {}", quote_server(message, &Secrets::NONE))),
    }
}

/// Decodes `%20` and the like. Leaves what is no such sequence as it is.
fn decode(message: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(message.len());
    let mut rest = message;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match (byte, after) {
            (b'%', [high, low, ..]) => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    decoded
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}
