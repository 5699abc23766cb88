//! A client of the line protocol.

use std::io::{BufRead as _, BufReader, Read, Write};

use crate::HEADER;

/// A client on a connection.
#[derive(Debug)]
pub struct LineClient<S> {
    stream: BufReader<S>,
}

impl<S: Read + Write> LineClient<S> {
    /// A client on a connection that was accepted.
    ///
    /// # Panics
    /// Like all functions here: if the connection is broken.
    pub fn new(mut stream: S) -> Self {
        stream.write_all(HEADER).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends requests, each of which is a line.
    pub fn send(&mut self, requests: &str) {
        self.stream.get_mut().write_all(format!("{requests}\n").as_bytes()).unwrap();
    }

    /// The next line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// This many bytes, which need not be lines.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything until the server closes the connection; an error is such an end, too.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // What arrived before an error is in `bytes`.
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// Asserts that these lines arrive next.
    pub fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.line(), *line);
        }
    }
}
