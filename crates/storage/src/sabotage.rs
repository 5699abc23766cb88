//! Faults that tests switch on in storage, to show that they would detect them. They exist only with
//! `debug_assertions`, so not in a release, and the environment selects one.

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A group counts as durable without a sync.
    ConfirmBeforeSync,
    /// A journal file is overwritten before the checkpoint contains its messages.
    FreeBeforeCheckpoint,
    /// Merged runs are deleted before the checkpoint refers to their replacement.
    RemoveBeforeCheckpoint,
    /// All read data counts as undamaged, whatever its checksum.
    IgnoreCrc,
    /// Settlements are not written.
    ForgetSettlement,
    /// The newest message is found first.
    SwapOrder,
    /// Damage in the middle of the journal counts as a torn end.
    AcceptDamage,
    /// A checkpoint that has lost its last commit counts as undamaged.
    AcceptRollback,
    /// Replayed data is not written again.
    TrustTheCache,
    /// Sequences that records name are used again.
    GiveNumbersAgain,
    /// Groups of other directories count as our own.
    AnyStamp,
    /// A queue in which messages were only settled is not in the next checkpoint.
    SettleWithoutTouch,
    /// A checkpoint is committed when a generation retires, and the run is not synced.
    RetireBeforeSync,
    /// A checkpoint is committed after a merge, and the run is not synced.
    MergeBeforeSync,
    /// Groups do not say how far the journal was synced.
    NoSyncedInGroups,
    /// Replayed data is not synced.
    NoSyncInRecovery,
    /// The checkpoint of a start does not say that replayed data is synced.
    NoSyncedAtStart,
    /// The names of a new journal's files are not synced.
    NoSyncOfNewFolder,
    /// The name of an added journal file is not synced.
    NoSyncOfAddedFile,
    /// The name of a new checkpoint is not synced.
    NoSyncOfCheckpointName,
}

/// Whether this fault is switched on.
#[cfg(debug_assertions)]
pub(crate) fn is(way: Sabotage) -> bool {
    static ACTIVE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let active = ACTIVE.get_or_init(|| std::env::var("FERRYMQ_SABOTAGE").ok());
    active.as_deref().is_some_and(|active| active == format!("{way:?}"))
}

/// Whether this fault is switched on: never.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) const fn is(_: Sabotage) -> bool {
    false
}
