//! The log lines of a connection: when it opens, with its user; the errors on its channels; and why it ends.

use std::{io, sync::Arc};

use ferrymq_node::Client;
use ferrymq_wire::LogLine;

use crate::log_limit::LogLimit;

/// Limits of the lines that clients can cause as often as they like. All connections share them.
#[derive(Debug)]
pub struct LogLimits {
    /// Lines about connections without a login: anybody can open many of them.
    pub strangers: LogLimit,
    /// Lines about channels that were closed with an error.
    pub channel_errors: LogLimit,
    /// Lines about connections that the server refuses at once.
    pub accepting: LogLimit,
}

impl LogLimits {
    /// Logs how many lines were suppressed since the last time.
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
    /// The name that the client's program gives itself, after the connection has opened.
    client_name: Option<Box<str>>,
    /// Why the connection ends, and whether that is an error.
    end: Option<(bool, String)>,
    /// The login was refused, and the log line about that is enough.
    is_refused: bool,
}

impl ConnectionLog {
    /// The log of a new connection.
    #[must_use]
    pub fn new(limits: Arc<LogLimits>) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Logs what the session reports.
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

    /// The connection has ended: logs the session's reason, or else the socket's.
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
