//! Faults that tests switch on in a shard, to show that they would detect them. Without `debug_assertions`, as in a
//! release, this does not exist in the compiled code: every check is a constant `false`.

/// The fault of a sabotaged shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Returned messages wait behind those that were never delivered.
    OrderSwapped,
    /// An accepted message is not settled in storage.
    SettlementForgotten,
    /// A returned message looks as if it were new.
    RedeliveredLost,
    /// Expired messages are delivered.
    ExpiryIgnored,
    /// A subscription without credit is not woken when it has some.
    CreditForgotten,
    /// A queue whose front message was being read is not continued.
    LoadedForgotten,
    /// A message is settled, and its dead letter is lost.
    DeadLetterLost,
    /// A queue grows above its limit.
    LimitIgnored,
    /// The lowest priority is delivered first.
    LanesSwapped,
    /// A queue with a single active subscription serves the second one too.
    SecondActive,
    /// It is not stored that a dead letter is unconfirmed.
    UnconfirmedForgotten,
    /// A dead letter that waits for space is not tried again when there is some.
    SpaceForgotten,
    /// A queue ignores changes of its settings.
    PolicyIgnored,
    /// A transaction is not atomic.
    UnitTorn,
    /// An exchange that routes each message to one of its targets routes it to all of them.
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
