//! What the log says of one connection: that it was opened, by whom; what went wrong on its channels; and why it ended.

use std::{io, sync::Arc};

use ferrymq_node::Client;
use ferrymq_wire::LogLine;

use crate::log_limit::LogLimit;

/// How many lines there may be of what clients can cause at will. Shared by all connections.
#[derive(Debug)]
pub struct LogLimits {
    /// Of those who have not logged in: anybody can make as many of them as they like.
    pub strangers: LogLimit,
    /// Of channels that were closed because of an error.
    pub channel_errors: LogLimit,
    /// Of connections that cannot be taken in.
    pub accepting: LogLimit,
}

impl LogLimits {
    /// Writes how many lines were left out of late.
    pub fn report(&self) {
        [&self.strangers, &self.channel_errors, &self.accepting].into_iter().for_each(LogLimit::report);
    }
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            strangers: LogLimit::new("refused logins and connections that ended before a login"),
            channel_errors: LogLimit::new("channel errors"),
            accepting: LogLimit::new("connections that cannot be accepted"),
        }
    }
}

/// The log of one connection.
#[derive(Debug, Default)]
pub struct ConnectionLog {
    limits: Arc<LogLimits>,
    /// What the client's program calls itself, once the connection is open.
    client_name: Option<Box<str>>,
    /// Why it ends, and whether something was wrong.
    end: Option<(bool, String)>,
    /// Its login was refused, and the line that says so says enough.
    is_refused: bool,
}

impl ConnectionLog {
    /// The log of a connection that begins.
    #[must_use]
    pub fn new(limits: Arc<LogLimits>) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The session has something to say.
    pub fn line(&mut self, line: LogLine, client: &Client) {
        let peer = client.address();
        match line {
            LogLine::Opened { client: name } => {
                let (user, vhost) = who(client);
                tracing::info!(peer, user, vhost, client = name, "connection opened");
                self.client_name = Some(name.into());
            }
            LogLine::LoginRefused(why) => {
                if self.limits.strangers.passes() {
                    tracing::warn!(peer, "login refused: {why}");
                }
                self.is_refused = true;
            }
            LogLine::ChannelError { channel, text } => {
                if self.limits.channel_errors.passes() {
                    let (user, vhost) = who(client);
                    let name = self.client_name.as_deref();
                    tracing::warn!(peer, user, vhost, client = name, channel, "channel error: {text}");
                }
            }
            LogLine::Ends { wrong, why } => {
                self.end.get_or_insert((wrong, why));
            }
        }
    }

    /// The connection has ended: as its session said before, or as the socket says.
    pub fn ended(&mut self, socket: io::Result<()>, client: &Client) {
        let peer = client.address();
        let (wrong, why) = match (self.end.take(), socket) {
            (Some(end), _) => end,
            (None, Ok(())) => (true, "the client closed its socket without connection.close".to_owned()),
            (None, Err(error)) => (true, format!("connection lost: {error}")),
        };
        let Some(name) = &self.client_name else {
            if !self.is_refused && self.limits.strangers.passes() {
                tracing::info!(peer, "connection ended before it was open: {why}");
            }
            return;
        };
        let (user, vhost) = who(client);
        if wrong {
            tracing::warn!(peer, user, vhost, client = &**name, "connection ended: {why}");
        } else {
            tracing::info!(peer, user, vhost, client = &**name, "connection ended: {why}");
        }
    }
}

fn who(client: &Client) -> (&str, &str) {
    (client.user().map_or("", |user| user), client.vhost().map_or("", |vhost| vhost))
}
