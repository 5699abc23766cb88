//! Peers without manners.

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

/// Whoever asks is answered, however many others have come and ask slowly or not at all: the oldest of them makes room.
#[tokio::test]
async fn the_oldest_of_too_many_connections_makes_room() {
    const CONNECTIONS_MAX: usize = 256;
    // Another server closes this one for its slowness alone, and before those that come later.
    let elsewhere = Site::open().await;
    let mut patient = elsewhere.connect().await;
    patient.write_all(b"GET").await.unwrap();
    let site = Site::open().await;
    let mut slow = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = site.connect().await;
        // An answer proves that the connection is counted. Then it asks for more, and does not end.
        stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
        stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: lo").await.unwrap();
        slow.push(stream);
    }
    assert!(site.is_open().await);
    // Closed with unread input, it may also be reset.
    let (mut byte, mut other) = ([0; 1], [0; 1]);
    tokio::select! {
        biased;
        _ = patient.read(&mut other) => panic!("the oldest was closed for its slowness only"),
        read = slow[0].read(&mut byte) => assert_eq!(read.unwrap_or(0), 0),
    }
    let newest = slow.last_mut().unwrap();
    newest.write_all(b"calhost\r\n\r\n").await.unwrap();
    assert_ne!(newest.read(&mut [0; 1024]).await.unwrap(), 0, "only the oldest was closed");
}
