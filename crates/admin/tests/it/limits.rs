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

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_make_room_again() {
    const CONNECTIONS_MAX: usize = 256;
    let site = Site::open().await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = site.connect().await;
        // An answer proves that the connection is counted.
        stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
        open.push(stream);
    }
    let mut refused = site.connect().await;
    assert_eq!(refused.read(&mut [0; 16]).await.unwrap(), 0);

    open.clear();
    while !site.is_open().await {
        tokio::task::yield_now().await;
    }
}
