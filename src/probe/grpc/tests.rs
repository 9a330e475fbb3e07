//! The messages and the statuses of real servers and of hostile ones.

use hyper::header::HeaderName;
use proptest::prelude::*;

use super::message::{read_response, request};
use super::*;
use crate::probe::conversation::is_expected;

#[test]
fn a_request_is_as_the_protocol_has_it() {
    assert_eq!(request(""), b"\0\0\0\0\0");
    assert_eq!(request("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
    let long = "x".repeat(300);
    let expected = [b"\0\0\0\x01\x2f\x0a\xac\x02", long.as_bytes()].concat();
    assert_eq!(request(&long), expected);
}

/// Returns a message with its prefix.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

#[test]
fn an_answer_is_read_up_to_its_last_byte() {
    let status = |message: &[u8]| read_response(&framed(message)).map(|status| status.to_string());
    for (message, expected) in [
        (&b""[..], Some("UNKNOWN")),
        (b"\x08\x00", Some("UNKNOWN")),
        (b"\x08\x01", Some("SERVING")),
        (b"\x08\x02", Some("NOT_SERVING")),
        (b"\x08\x03", Some("SERVICE_UNKNOWN")),
        (b"\x08\x81\x00", Some("SERVING")),
        (b"\x08\x09", Some("status 9 of the service")),
        // The last one counts, and fields of later versions are skipped.
        (b"\x08\x02\x08\x01", Some("SERVING")),
        (b"\x10\x07\x19........\x22\x02ab\x2d....\x08\x01", Some("SERVING")),
        (b"\x08", None),
        (b"\x08\x81", None),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", None),
        (b"\x00\x01", None),
        (b"\x0b\x01", None),
        (b"\x22\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", None),
        (b"\x22\x05ab", None),
        (b"\x19...", None),
        (b"\x2d..", None),
    ] {
        assert_eq!(status(message).as_deref(), expected, "{message:?}");
    }
    // A compressed message, a wrong length, two messages, and the start of one.
    for body in
        [&b"\x01\0\0\0\x02\x08\x01"[..], b"\0\0\0\0\x01\x08\x01", b"\0\xff\xff\xff\xff", b"\0"]
    {
        assert_eq!(read_response(body), None, "{body:?}");
    }
    assert_eq!(read_response(&framed(b"\x08\x01").repeat(2)), None);
}

#[test]
fn each_status_has_its_verdict() {
    let none = "auth: the server asks for credentials (UNAUTHENTICATED), which a `grpc` check has \
                none of";
    let denied = none.replace("UNAUTHENTICATED", "PERMISSION_DENIED");
    for (status, message, expected) in [
        ("0", "", ""),
        ("5", "unknown service", "grpc: NOT_FOUND \"unknown service\""),
        ("5", "", "grpc: NOT_FOUND"),
        ("12", "unknown method Check", "grpc: UNIMPLEMENTED: no health service"),
        ("14", "a%20b%0D%1b[31m%zz%2", "grpc: UNAVAILABLE \"a b\\r\\u{1b}[31m%zz%2\""),
        ("16", "ann", &format!("?{none}")),
        ("7", "ann", &format!("?{denied}")),
        ("17", "", "grpc: status 17"),
        ("-1", "", "grpc: the answer has the grpc-status \"-1\""),
        (
            "99999999999999999999",
            "",
            "grpc: the answer has the grpc-status \"99999999999999999999\"",
        ),
    ] {
        let mut trailers = HeaderMap::new();
        for (name, value) in [("grpc-status", status), ("grpc-message", message)] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let result = status::check(&trailers);
        assert!(is_expected(&result, expected), "{status} {message}: {result:?}");
    }
    let result = status::check(&HeaderMap::new());
    assert!(is_expected(&result, "grpc: the answer has no grpc-status"), "{result:?}");
}

proptest! {
    // A reference reader of the only shape that servers send.
    #[test]
    fn any_answer_is_read_or_refused(
        number in any::<u64>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let _ = read_response(&bytes);
        let _ = read_response(&framed(&bytes));
        let mut message = vec![8];
        let mut rest = number;
        while rest > 127 {
            message.push(rest as u8 | 128);
            rest >>= 7;
        }
        message.push(rest as u8);
        let is_serving = read_response(&framed(&message)) == Some(ServingStatus::SERVING);
        prop_assert_eq!(is_serving, number == 1);
        prop_assert!(read_response(&framed(&message)).is_some());
    }
}
