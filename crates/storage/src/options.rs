//! What can be set, with its defaults.

/// How storage behaves. Limits say their unit last.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of one journal file. Fixed when the data directory is made; an existing directory keeps its own.
    pub file_bytes: u32,
    /// How many journal files there are; one of them is kept back for settlements on a full disk. Fixed like `file_bytes`.
    pub files: u32,
    /// How much of transient messages stays in memory in all; the rest goes to disk.
    pub transient_bytes_max: u64,
    /// How much of what was read back from disk stays in memory in all.
    pub read_bytes_max: u64,
    /// Bodies up to this are copied, longer ones are shared.
    pub copy_bytes_max: u32,
    /// Bodies over this get a file of their own.
    pub own_file_bytes: u32,
    /// A run this long, three quarters of which are settled, is written anew without them.
    pub merge_bytes: u64,
    /// A queue that is in more runs than this has them made fewer.
    pub extents_max: u32,
    /// Under load a flush waits until its group has this much.
    pub group_bytes: u32,
    /// With fewer messages than this in a group nobody waits for more.
    pub group_messages: u32,
    /// The longest that a flush waits for its group to fill.
    pub group_wait_us: u64,
    /// When something is written that nobody waits for.
    pub write_wait_ms: u64,
    /// When something is synced that nobody waits for.
    pub sync_wait_ms: u64,
    /// When nothing was asked for so long, memory of the journal that nothing lives in is given back.
    pub rest_ms: u64,
    /// Whether damage to what was synced is given up at the start, instead of stopping it.
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
