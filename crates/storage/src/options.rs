//! Options, with their defaults.

/// How storage behaves. Limits say their unit last.
#[derive(Clone, Debug)]
pub struct Options {
    /// The length of one journal file. Fixed when the data directory is created; an existing directory keeps its
    /// own.
    pub file_bytes: u32,
    /// The number of journal files; one of them is reserved for settlements on a full disk. Fixed like
    /// `file_bytes`.
    pub files: u32,
    /// How much memory transient messages may take; the rest goes to disk.
    pub transient_bytes_max: u64,
    /// How much memory messages may take that were read back from disk.
    pub read_bytes_max: u64,
    /// Bodies up to this are copied, longer ones are shared.
    pub copy_bytes_max: u32,
    /// Bodies longer than this get their own file.
    pub own_file_bytes: u32,
    /// A run of this length is rewritten when three quarters of it are settled.
    pub merge_bytes: u64,
    /// The runs of a queue that is in more runs than this are merged.
    pub extents_max: u32,
    /// Under load a flush waits until its group has this much.
    pub group_bytes: u32,
    /// With fewer messages than this in a group, a flush does not wait for more.
    pub group_messages: u32,
    /// The maximum time that a flush waits for its group to fill.
    pub group_wait_us: u64,
    /// When something is written for which nobody waits.
    pub write_wait_ms: u64,
    /// When something is synced for which nobody waits.
    pub sync_wait_ms: u64,
    /// After this time without requests, memory of the journal without live messages is freed.
    pub rest_ms: u64,
    /// Whether damaged synced data is given up at the start, instead of stopping the start.
    pub repair: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            file_bytes: 16 << 20,
            files: 5,
            transient_bytes_max: 32 << 20,
            read_bytes_max: 8 << 20,
            copy_bytes_max: 2048,
            own_file_bytes: 1 << 20,
            merge_bytes: 1 << 20,
            extents_max: 128,
            group_bytes: 64 << 10,
            group_messages: 64,
            group_wait_us: 300,
            write_wait_ms: 10,
            sync_wait_ms: 1000,
            rest_ms: 5_000,
            repair: false,
        }
    }
}
