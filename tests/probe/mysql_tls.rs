//! The ways to log in that MySQL allows only over TLS. The versions that are fetched speak no TLS
//! of today, so a proxy ends it in front of them. It passes the rest over the server's socket file,
//! which MySQL takes to be as safe as TLS.

use std::io;
use std::path::PathBuf;

use external_endpoints::config::MysqlCheck;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates::{ALL, Authority, Clients, acceptor};
use crate::fixtures::*;
use crate::mysql::{COLD, REFUSED, check, probe};
use crate::mysql_servers::{mysql, sql, start};
use crate::servers::Database;

#[tokio::test]
async fn over_tls_a_cold_cache_gets_the_password_in_clear() {
    let Some(product) = mysql("8.0.12") else { return };
    let (server, authority) = (start(&product, "").await, Authority::new());
    sql(&server, "CREATE USER sha@'%' IDENTIFIED WITH sha256_password BY 'secret'");
    let front = front(&server, &authority).await;
    let plain = check(server.port);
    let secure = MysqlCheck { tls: Some(authority.trusted()), ..check(front.port) };
    assert_eq!(probe(&plain).await, inconclusive(COLD));
    let wrong = MysqlCheck { password: Some(literal("wrong")), ..secure.clone() };
    for _ in 0..3 {
        assert_eq!(probe(&wrong).await, inconclusive(REFUSED));
    }
    // It did not warm the cache.
    assert_eq!(probe(&plain).await, inconclusive(COLD));
    assert_eq!(probe(&secure).await, pass());
    // The cache is warm now, and the password is no longer sent.
    assert_eq!(probe(&plain).await, pass());
    assert_eq!(probe(&secure).await, pass());
    sql(&server, "FLUSH PRIVILEGES");
    assert_eq!(probe(&plain).await, inconclusive(COLD));
    assert_eq!(probe(&secure).await, pass());
    sql(&server, "ALTER USER checker@'%' IDENTIFIED BY 'second'");
    assert_eq!(probe(&secure).await, inconclusive(REFUSED));
    let second = MysqlCheck { password: Some(literal("second")), ..secure.clone() };
    assert_eq!(probe(&second).await, pass());

    // MySQL does not take this way over a socket file, so only its words without TLS are tried.
    let in_clear = "auth: the server asks for the password in clear; add tls: {}";
    let plain = MysqlCheck { user: literal("sha"), ..plain };
    assert_eq!(probe(&plain).await, inconclusive(in_clear));
}

/// Starts a proxy that ends TLS in front of a server.
async fn front(server: &Database, authority: &Authority) -> Server {
    let socket = server.folder.path().join("socket");
    let acceptor = acceptor(&authority.sign(&["127.0.0.1"]), Clients::All, ALL, &[]);
    Server::start(move |client| {
        let (socket, acceptor) = (socket.clone(), acceptor.clone());
        async move {
            // A client that ends the connection is no error.
            let _ = serve(client, socket, acceptor).await;
        }
    })
    .await
}

/// The place of the sequence number in a packet.
const SEQUENCE: usize = 3;

async fn serve(mut client: TcpStream, socket: PathBuf, acceptor: TlsAcceptor) -> io::Result<()> {
    let mut server = UnixStream::connect(socket).await?;
    let mut greeting = read_packet(&mut server).await?;
    let version = greeting[5..].iter().position(|byte| *byte == 0).unwrap();
    // The second byte of the properties, after the number of the connection and the scramble.
    greeting[5 + version + 1 + 4 + 9 + 1] |= TLS;
    client.write_all(&greeting).await?;
    let request = read_packet(&mut client).await?;
    assert_eq!((request.len(), request[5] & TLS), (36, TLS));
    let mut client = acceptor.accept(client).await?;
    let mut login = read_packet(&mut client).await?;
    login[5] &= !TLS;
    loop {
        // The server has not seen the request for TLS, and is one behind.
        login[SEQUENCE] -= 1;
        server.write_all(&login).await?;
        let mut answer = read_packet(&mut server).await?;
        while answer[4..] == [1, 3] {
            pass_on(answer, &mut client).await?;
            answer = read_packet(&mut server).await?;
        }
        let is_end = matches!(answer[4], 0 | 0xff);
        pass_on(answer, &mut client).await?;
        if is_end {
            break;
        }
        login = read_packet(&mut client).await?;
    }
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// The property of TLS in the second byte of the properties.
const TLS: u8 = 0x08;

async fn pass_on(mut packet: Vec<u8>, client: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    packet[SEQUENCE] += 1;
    client.write_all(&packet).await?;
    client.flush().await
}

async fn read_packet(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; 4];
    stream.read_exact(&mut packet).await?;
    let length = usize::from(packet[0]) + (usize::from(packet[1]) << 8);
    packet.resize(4 + length, 0);
    stream.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}
