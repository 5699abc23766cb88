//! Peers that exceed a limit or speak another protocol.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::site::Site;

#[tokio::test]
async fn a_head_that_does_not_end_is_refused() {
    let site = Site::open().await;
    let mut request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Long: ".to_vec();
    request.resize(64 << 10, b'x');
    assert_eq!(site.send(&request).await.status, 431);
}

#[tokio::test]
async fn other_protocols_are_turned_away() {
    let site = Site::open().await;
    assert_eq!(site.send(b"AMQP\0\0\x09\x01\r\n\r\n").await.status, 400);
}

/// A request is answered even if many connections are open that send nothing or send slowly: the oldest of them is
/// closed.
#[tokio::test]
async fn the_oldest_of_too_many_connections_makes_room() {
    const CONNECTIONS_MAX: usize = 256;
    // This connection is to another server, which closes it only because it is slow. That happens before a later
    // connection would be closed for the same reason.
    let elsewhere = Site::open().await;
    let mut patient = elsewhere.connect().await;
    patient.write_all(b"GET").await.unwrap();
    let site = Site::open().await;
    let mut slow = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = site.connect().await;
        // The answer proves that the connection is counted. Then the peer begins another request and does not end it.
        stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
        stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: lo").await.unwrap();
        slow.push(stream);
    }
    assert!(site.is_open().await);
    // The socket has unread input when it is closed, so the peer may also see a reset.
    let (mut byte, mut other) = ([0; 1], [0; 1]);
    tokio::select! {
        biased;
        _ = patient.read(&mut other) => panic!("the oldest was closed only because it was slow"),
        read = slow[0].read(&mut byte) => assert_eq!(read.unwrap_or(0), 0),
    }
    let newest = slow.last_mut().unwrap();
    newest.write_all(b"calhost\r\n\r\n").await.unwrap();
    assert_ne!(newest.read(&mut [0; 1024]).await.unwrap(), 0, "only the oldest was closed");
}
