//! An HTTP interface on a free port, and a client that shows the bytes of the answers.

use std::sync::{Arc, Mutex};

use ferrymq_admin::Admin;
use ferrymq_model::{ListenerReport, Managed, Management, Readiness};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A server whose readiness the test sets.
pub struct FixedReadiness(Mutex<Readiness>);

impl FixedReadiness {
    pub fn set(&self, readiness: Readiness) {
        *self.0.lock().unwrap() = readiness;
    }
}

impl Managed for FixedReadiness {
    fn readiness(&self) -> Readiness {
        self.0.lock().unwrap().clone()
    }

    fn listeners(&self) -> Vec<ListenerReport> {
        Vec::new()
    }

    /// It is not recovered.
    fn management(&self) -> Option<Arc<dyn Management>> {
        None
    }
}

pub struct Site {
    address: std::net::SocketAddr,
    pub server: Arc<FixedReadiness>,
}

impl Site {
    pub async fn open() -> Self {
        let server = Arc::new(FixedReadiness(Mutex::new(Readiness::Ready)));
        let admin = Admin::new(server.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                let admin = admin.clone();
                tokio::spawn(async move { admin.serve(stream, peer).await });
            }
        });
        Self { address, server }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends one request on a connection of its own.
    pub async fn ask(&self, method: &str, path: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        self.send(request.as_bytes()).await
    }

    /// Whether a new connection is answered, or closed at once.
    pub async fn is_open(&self) -> bool {
        let mut stream = self.connect().await;
        // If the peer has already closed the connection, it may refuse these bytes or not read them.
        let _ = stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0)
    }

    /// Sends these bytes and reads the whole answer.
    pub async fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        Answer::parse(&text)
    }
}

pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Self { status, headers, body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(&self.body).unwrap()
    }
}
