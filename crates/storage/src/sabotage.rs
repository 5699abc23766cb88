//! Ways to break storage on purpose, so that its tests can show that they would notice. They exist only with
//! `debug_assertions`, so in no release, and there the environment says which one.

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A group counts as durable without a sync.
    ConfirmBeforeSync,
    /// A journal file is written over before the checkpoint has what was in it.
    FreeBeforeCheckpoint,
    /// Runs that were merged are removed before the checkpoint has the one that replaces them.
    RemoveBeforeCheckpoint,
    /// What was read counts as whole, whatever its checksum says.
    IgnoreCrc,
    /// Settlements are not written.
    ForgetSettlement,
    /// The newest message is found first.
    SwapOrder,
    /// Damage in the middle of the journal counts as a torn tail.
    AcceptDamage,
    /// A checkpoint that has lost its last commit counts as whole.
    AcceptRollback,
    /// What was replayed is not written again.
    TrustTheCache,
    /// Numbers that records name are given again.
    GiveNumbersAgain,
    /// Groups of other directories count as our own.
    AnyStamp,
    /// A queue from which messages were only settled is not in the next checkpoint.
    SettleWithoutTouch,
    /// A checkpoint is committed when a generation retires, and what it speaks of is not synced.
    RetireBeforeSync,
    /// A checkpoint is committed after a merge, and what it speaks of is not synced.
    MergeBeforeSync,
    /// Groups do not say up to where the journal was synced.
    NoSyncedInGroups,
    /// What was replayed is not synced.
    NoSyncInRecovery,
    /// The checkpoint of a start does not say that what was replayed is synced.
    NoSyncedAtStart,
    /// The names of a new journal's files are not synced.
    NoSyncOfNewFolder,
    /// The name of an added journal file is not synced.
    NoSyncOfAddedFile,
    /// The name of a new checkpoint is not synced.
    NoSyncOfCheckpointName,
}

/// Whether storage is to be broken in this way.
#[cfg(debug_assertions)]
pub(crate) fn is(way: Sabotage) -> bool {
    static ACTIVE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let active = ACTIVE.get_or_init(|| std::env::var("FERRYMQ_SABOTAGE").ok());
    active.as_deref().is_some_and(|active| active == format!("{way:?}"))
}

/// Whether storage is to be broken in this way: it is not.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) const fn is(_: Sabotage) -> bool {
    false
}
