//! Properties of every answer, however it is cut into pieces; hyper is the other opinion.

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// The result of reading an answer.
#[derive(Debug, PartialEq)]
enum Read {
    /// The status, the content, and true if the end was orderly.
    Answer(u16, Vec<u8>, bool),
    /// No head of an answer.
    Nothing,
}

/// Reads the pieces, and then the end of the connection.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut answer = ResponseReader::new();
    let (mut status, mut content) = (None, Vec::new());
    let read = |status: Option<u16>, content, ended| match status {
        Some(status) => Read::Answer(status, content, ended),
        None => Read::Nothing,
    };
    for mut data in pieces {
        loop {
            match answer.next(&mut data, &Method::GET) {
                Ok(Some(ResponsePart::Head(head))) => status = Some(head.as_u16()),
                Ok(Some(ResponsePart::Data(data))) => content.extend_from_slice(data),
                Ok(Some(ResponsePart::End)) => return read(status, content, true),
                Ok(None) => break,
                Err(_) => return read(status, content, false),
            }
        }
        assert!(data.is_empty(), "{data:?} is left over");
    }
    let ended = matches!(&answer.stage, Stage::BodyReader(body) if body.may_end());
    read(status, content, ended)
}

/// Reads the same answer by hyper.
async fn hyper(answer: Vec<u8>) -> Read {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    let server = async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && theirs.read_buf(&mut request).await.is_ok() {}
        let _ = theirs.write_all(&answer).await;
        let _ = theirs.shutdown().await;
        let _ = theirs.read_to_end(&mut Vec::new()).await;
    };
    let client = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let exchange = async {
            let request = Request::new(Empty::<Bytes>::new());
            let Ok(mut response) = sender.send_request(request).await else { return Read::Nothing };
            let mut content = Vec::new();
            while let Some(frame) = response.body_mut().frame().await {
                match frame {
                    Ok(frame) => {
                        content.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()))
                    }
                    Err(_) => {
                        return Read::Answer(response.status().as_u16(), content, false);
                    }
                }
            }
            Read::Answer(response.status().as_u16(), content, true)
        };
        tokio::select! {
            biased;
            read = exchange => read,
            _ = async { let _ = connection.await; std::future::pending::<()>().await } => {
                unreachable!()
            }
        }
    };
    tokio::join!(client, server).0
}

fn any_head() -> impl Strategy<Value = String> {
    let interim =
        prop::collection::vec("HTTP/1\\.1 10[0-3] [a-z]{0,3}\r\n(x: y\r\n)?(\r\n){1,3}", 0..3);
    let status = "HTTP/1\\.[01] (200|204|304|503|99|1000)( [a-z ]{0,5})?\r?\n";
    let header = prop_oneof![
        2 => "[A-Za-z-]{1,8}: {0,2}[!-~ ]{0,9}\r?\n",
        2 => "[Cc]ontent-[Ll]ength: (0|3|7|12|-1|\\+7|7, ?7|7,8|)\r\n",
        3 => "[Tt]ransfer-[Ee]ncoding: (gzip, )?([Cc]hunked|identity) ?\r\n",
    ];
    (interim, status, prop::collection::vec(header, 0..4), "\r?\n").prop_map(
        |(interim, status, headers, end)| interim.concat() + &status + &headers.concat() + &end,
    )
}

fn any_body() -> impl Strategy<Value = String> {
    let size = prop_oneof![9 => "0{0,2}[1-7]", 1 => "[0-9a-gA-G]{0,17}"];
    let chunk =
        (size, "[ \t]{0,2}(;[a-z=]{0,5})?\r\n", "[a-z\r\n]{0,8}", prop::bool::weighted(0.9))
            .prop_map(|(size, end, data, fits)| {
                let length = if fits {
                    usize::from_str_radix(&size, 16).unwrap_or(0).min(99)
                } else {
                    data.len()
                };
                let data: String =
                    data.chars().chain("x".repeat(99).chars()).take(length).collect();
                size + &end + &data + "\r\n"
            });
    let chunks = prop::collection::vec(chunk, 0..4).prop_map(|chunks| chunks.concat());
    prop_oneof![
        1 => "[a-z\r\n]{0,14}",
        2 => (chunks, "(0{1,2}\r\n(x: y\r\n)?\r\n)?[a-z]{0,3}")
            .prop_map(|(chunks, end)| chunks + &end),
    ]
}

/// Returns an answer, some of whose bytes may be replaced.
fn any_answer() -> impl Strategy<Value = Vec<u8>> {
    let odd = prop_oneof![any::<u8>(), prop::sample::select(b"\r\n:; \t0HT/1".to_vec())];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), odd), 0..3);
    (any_head(), any_body(), changes, prop::bool::weighted(0.3)).prop_map(
        |(head, body, changes, broken)| {
            let mut bytes = (head + &body).into_bytes();
            for (at, byte) in changes.into_iter().filter(|_| broken) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

/// Cuts the bytes at these places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    })]

    #[test]
    fn an_answer_is_read_alike_in_any_pieces(
        bytes in any_answer(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = read([&bytes[..]].into_iter());
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        prop_assert_eq!(&read(cut(&bytes, &places).into_iter()), &whole, "{:?}", shown);
        prop_assert_eq!(&read(bytes.chunks(1)), &whole, "{:?}", shown);
    }

    // Only hyper rejects malformed lines after the last chunk: no check has ever read them.
    #[test]
    fn an_answer_is_read_as_hyper_reads_it(bytes in any_answer()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let theirs = runtime.block_on(hyper(bytes.clone()));
        let ours = read([&bytes[..]].into_iter());
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        match (&ours, &theirs) {
            (Read::Answer(status, content, true), Read::Answer(other, less, false)) => {
                let chunked = shown.to_lowercase().contains("chunked");
                prop_assert!(status == other && content == less && chunked, "{shown:?}");
            }
            // An invalid length or encoding: the status is read nevertheless.
            (Read::Answer(_, content, false), Read::Nothing) => {
                prop_assert!(content.is_empty(), "{shown:?}");
            }
            _ => prop_assert_eq!(&ours, &theirs, "{:?}", shown),
        }
    }

    #[test]
    fn no_bytes_panic_or_use_unbounded_memory(
        piece in prop::collection::vec(any::<u8>(), 1..64),
        start in any_head(),
        times in 1..5000_usize,
    ) {
        let mut answer = ResponseReader::new();
        let first = [start.as_bytes(), &piece].concat();
        let pieces = std::iter::repeat_n(&piece[..], times);
        for mut data in std::iter::once(&first[..]).chain(pieces) {
            while let Ok(Some(ResponsePart::Head(_) | ResponsePart::Data(_))) =
                answer.next(&mut data, &Method::GET) {}
            if let Stage::Head(head) = &answer.stage {
                prop_assert!(head.kept() <= 2 * crate::probe::http::expectation::MAX_HEAD);
            }
        }
    }
}
