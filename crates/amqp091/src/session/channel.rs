//! The channels of a connection, as the session sees them: open, or closed by the server and not yet acknowledged.

use super::content::Assembly;

/// A channel that is open or closing.
#[derive(Debug)]
pub(super) struct Channel {
    pub number: u16,
    /// The server has closed it. Until the close-ok, all other frames of the client on it are ignored.
    pub closing: bool,
    /// A publish of which a part has arrived.
    pub assembly: Option<Box<Assembly>>,
}

/// The channels of a connection.
#[derive(Debug, Default)]
pub(super) struct Channels {
    /// In ascending order of their numbers. Most connections have one channel.
    open: Vec<Channel>,
    /// The numbers of the channels that were closed last, the latest first. Some clients settle on a channel after its
    /// end.
    lately_closed: Vec<u16>,
}

/// The maximum length of `lately_closed`.
const LATELY_CLOSED_MAX: usize = 16;

impl Channels {
    /// The number of channels that are open or closing.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// The number of bytes of publishes of which only a part has arrived.
    pub fn gathered_bytes(&self) -> usize {
        self.gathered().map(|(_, bytes)| bytes).sum()
    }

    /// The channels with a publish of which a part has arrived, and the length of this part in bytes.
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

    /// Removes a channel, and notes that it was closed.
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
