//! A plain HTTP client for the daemon's admin pages and kube-proxy's health page.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, ToSocketAddrs};

/// Fetches a page and returns its status and body.
pub(crate) async fn get(address: impl ToSocketAddrs, path: &str) -> io::Result<(u16, String)> {
    get_as(address, path, "*/*").await
}

/// Fetches a page in a media type, and returns its status and body.
pub(crate) async fn get_as(
    address: impl ToSocketAddrs,
    path: &str,
    accept: &str,
) -> io::Result<(u16, String)> {
    // In HTTP/1.0 the answer ends with the connection and has no chunks.
    let request = format!("GET {path} HTTP/1.0\r\nhost: test\r\naccept: {accept}\r\n\r\n");
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer =
        tokio::time::timeout(Duration::from_secs(10), answer).await.map_err(io::Error::other)??;
    parse(&answer).ok_or_else(|| io::Error::other(format!("no HTTP answer: {answer}")))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
