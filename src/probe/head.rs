//! Reads the status from the head of an HTTP/1 answer, as strictly as hyper does, whose words it uses.

use hyper::StatusCode;

use super::ask::MOST_HEAD;

/// As many header lines as hyper takes.
const MOST_HEADERS: usize = 100;

#[derive(Debug, PartialEq)]
pub(super) enum Head {
    /// It goes on.
    Partial,
    Status(StatusCode),
    TooLarge,
    Broken(&'static str),
}

/// Reads an answer as far as it has come. Interim answers (1xx) are passed over.
pub(super) fn read(mut answer: &[u8]) -> Head {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(answer) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if answer.len() >= MOST_HEAD => return Head::TooLarge,
            Ok(httparse::Status::Partial) => return Head::Partial,
            Err(error) => return broken(error),
        };
        let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
        let Some(status) = status else { return Head::Broken("invalid HTTP status-code parsed") };
        // 101 is the last answer in HTTP/1.
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            answer = &answer[length..];
            continue;
        }
        return Head::Status(status);
    }
}

fn broken(error: httparse::Error) -> Head {
    match error {
        httparse::Error::TooManyHeaders => Head::TooLarge,
        httparse::Error::Version => Head::Broken("invalid HTTP version parsed"),
        httparse::Error::Status => Head::Broken("invalid HTTP status-code parsed"),
        _ => Head::Broken("invalid HTTP header parsed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_once_the_head_is_whole() {
        let whole = b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\nand more";
        for length in 0..whole.len() - 8 {
            assert_eq!(read(&whole[..length]), Head::Partial, "{length}");
        }
        assert_eq!(read(whole), Head::Status(StatusCode::NO_CONTENT));
        assert_eq!(read(b"HTTP/1.0 503 x\r\n\r\n"), Head::Status(StatusCode::SERVICE_UNAVAILABLE));
    }

    #[test]
    fn interim_answers_are_passed_over_but_a_switch_is_an_answer() {
        let interim = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 x\r\n\r\n";
        assert_eq!(read(interim), Head::Status(StatusCode::INTERNAL_SERVER_ERROR));
        assert_eq!(read(&interim[..40]), Head::Partial);
        assert_eq!(read(b"HTTP/1.1 101 x\r\n\r\n"), Head::Status(StatusCode::SWITCHING_PROTOCOLS));
    }

    #[test]
    fn what_is_not_http_is_told() {
        assert_eq!(read(b"SSH-2.0-OpenSSH_9.2\r\n"), Head::Broken("invalid HTTP version parsed"));
        assert_eq!(read(b"HTTP/1.1 2x0 y\r\n"), Head::Broken("invalid HTTP status-code parsed"));
        let long = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'y'; MOST_HEAD]].concat();
        assert_eq!(read(&long), Head::TooLarge);
        let many = [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"x: y\r\n".repeat(MOST_HEADERS + 1), b"\r\n"].concat();
        assert_eq!(read(&many), Head::TooLarge);
    }
}
