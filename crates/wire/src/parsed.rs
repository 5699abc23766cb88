//! The result of a codec that reads bytes.

/// The three results of a codec. A codec does not panic. It does not allocate memory by a length that it has not
/// checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<F, M> {
    /// A frame, and the number of input bytes that it took.
    Frame(F, usize),
    /// The beginning of a frame: the codec needs an input of at least this many bytes.
    Incomplete(usize),
    /// The input is not a frame, and more bytes cannot make it one. The peer made a mistake; the caller must read no
    /// more.
    Malformed(M),
}
