//! What a codec says of the bytes it was shown.

/// The three answers of a codec, and there is no fourth: it does not panic, and it allocates nothing by a length that
/// it has not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<F, M> {
    /// A frame, and how many bytes of the input it took.
    Frame(F, usize),
    /// The beginning of a frame: nothing more can be said before the input is at least this many bytes long.
    Incomplete(usize),
    /// No continuation makes this a frame; the peer is at fault, and the input is not to be read any further.
    Malformed(M),
}
