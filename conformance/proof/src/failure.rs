//! The reasons why a proof fails.

use std::fmt;
use std::io;

#[derive(Debug)]
pub enum Failure {
    /// The connection was lost, or nothing came for too long.
    Lost(io::Error),
    /// The server closed the connection or the channel. Contains its reason.
    Closed(String),
    /// The server or the machine did something wrong.
    Wrong(String),
}

pub type Outcome<T> = Result<T, Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(why) => write!(f, "the connection was lost: {why}"),
            Self::Closed(why) => write!(f, "the server closed the channel or the connection: {why}"),
            Self::Wrong(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(why: io::Error) -> Self {
        Self::Lost(why)
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}
