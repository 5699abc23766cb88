//! Ways to break a shard on purpose, so that tests can show that they would notice. Without
//! `debug_assertions`, as in a release, nothing of this is kept, and every question is answered "no" when the code is
//! compiled.

/// What a sabotaged shard does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Messages that came back wait behind those that never left.
    OrderSwapped,
    /// An accepted message is not settled in storage.
    SettlementForgotten,
    /// A message that came back looks as if it were new.
    RedeliveredLost,
    /// Messages are delivered although their time is over.
    ExpiryIgnored,
    /// A subscription that found no credit is not woken when it has some.
    CreditForgotten,
    /// A queue whose front message was being read is not looked at again.
    LoadedForgotten,
    /// A dead message is settled, and its letter goes nowhere.
    LetterLost,
    /// A queue grows over its limit.
    LimitIgnored,
    /// Messages of the lowest priority go first.
    LanesSwapped,
    /// A queue with a single active subscription serves the second one too.
    SecondActive,
    /// That a message's letter waits is not written down.
    KeptForgotten,
    /// A letter that waits for room is not tried again when there is some.
    RoomForgotten,
    /// A queue goes on as it did when what holds for it has changed.
    PolicyIgnored,
    /// What a transaction does does not hold together.
    UnitTorn,
    /// An exchange that gives each message to one of many gives it to all.
    GivenToAll,
}

/// The sabotage of a shard or queue, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Saboteur(#[cfg(debug_assertions)] Option<Sabotage>);

impl Saboteur {
    #[cfg(debug_assertions)]
    pub(crate) fn new(sabotage: Sabotage) -> Self {
        Self(Some(sabotage))
    }

    #[inline]
    pub(crate) fn does(self, sabotage: Sabotage) -> bool {
        #[cfg(debug_assertions)]
        return self.0 == Some(sabotage);
        #[cfg(not(debug_assertions))]
        {
            let _ = sabotage;
            false
        }
    }
}
