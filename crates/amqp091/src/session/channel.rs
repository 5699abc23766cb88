//! The channels of a connection, as far as frames are concerned: open, or closed by us and not yet acknowledged.

use super::content::Assembly;

/// A channel that was opened.
#[derive(Debug)]
pub(super) struct Channel {
    pub number: u16,
    /// The server has closed it: what the client still sends is ignored until its close-ok.
    pub closing: bool,
    /// What has arrived of a publish in several pieces.
    pub assembly: Option<Box<Assembly>>,
}

/// The channels of a connection.
#[derive(Debug, Default)]
pub(super) struct Channels {
    /// In ascending order of their numbers. Most connections have one.
    open: Vec<Channel>,
    /// The channels that were closed last, newest first, for clients that settle on a channel after its end.
    lately_closed: Vec<u16>,
}

/// How many channels that have ended are remembered.
const LATELY_CLOSED_MAX: usize = 16;

impl Channels {
    /// How many are open, those that are closing included.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Bytes of publishes that have arrived in part.
    pub fn gathered_bytes(&self) -> usize {
        self.gathered().map(|(_, bytes)| bytes).sum()
    }

    /// The channels with a publish that has arrived in part, and how many bytes of it.
    pub fn gathered(&self) -> impl Iterator<Item = (u16, usize)> {
        let gathered = |channel: &Channel| Some((channel.number, channel.assembly.as_ref()?.bytes()));
        self.open.iter().filter_map(gathered)
    }

    /// The channel with this number.
    #[inline]
    pub fn get(&mut self, number: u16) -> Option<&mut Channel> {
        let at = self.place(number).ok()?;
        self.open.get_mut(at)
    }

    /// Opens a channel that is not open.
    pub fn open(&mut self, number: u16) {
        if let Err(at) = self.place(number) {
            self.open.insert(at, Channel { number, closing: false, assembly: None });
            self.lately_closed.retain(|closed| *closed != number);
        }
    }

    /// Removes a channel, and remembers that it existed.
    pub fn close(&mut self, number: u16) {
        if let Ok(at) = self.place(number) {
            self.open.remove(at);
            self.lately_closed.insert(0, number);
            self.lately_closed.truncate(LATELY_CLOSED_MAX);
        }
    }

    /// Whether a channel was closed recently.
    pub fn was_closed_lately(&self, number: u16) -> bool {
        self.lately_closed.contains(&number)
    }

    fn place(&self, number: u16) -> Result<usize, usize> {
        self.open.binary_search_by_key(&number, |channel| channel.number)
    }
}
