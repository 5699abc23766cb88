//! What a codec answers when it reads bytes.

/// The three answers of a codec. It does not panic, and it allocates nothing by a length that it has not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<F, M> {
    /// A frame, and how many bytes of the input it took.
    Frame(F, usize),
    /// The beginning of a frame: the codec needs an input of at least this many bytes.
    Incomplete(usize),
    /// Not a frame, whatever follows. The peer made a mistake; nothing more may be read from the input.
    Malformed(M),
}
