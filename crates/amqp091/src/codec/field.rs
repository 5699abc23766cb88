//! Functions that read and write the fields of methods (section 4.2.5). The generated code calls them.

use ferrymq_wire::{Put, Reader};

use super::{Malformed, table::RawTable};

/// A short string that must be UTF-8, as in all methods without content.
#[inline]
pub fn short_text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    std::str::from_utf8(short_bytes(reader)?).map_err(|_| Malformed::NotText)
}

/// A short string of any bytes. RabbitMQ does not check the strings in methods with content, so a routing key need not
/// be text.
#[inline]
pub fn short_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let bytes = reader.u8()?;
    Ok(reader.bytes(usize::from(bytes))?)
}

/// A long string.
#[inline]
pub fn long_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let bytes = reader.u32()?;
    Ok(reader.bytes(bytes as usize)?)
}

/// A field table whose structure has been checked at every level.
#[inline]
pub fn table<'a>(reader: &mut Reader<'a>) -> Result<RawTable<'a>, Malformed> {
    RawTable::check(long_bytes(reader)?)
}

/// Checks that nothing follows a method's last field.
#[inline]
pub fn end(reader: &Reader<'_>) -> Result<(), Malformed> {
    if reader.is_empty() { Ok(()) } else { Err(Malformed::TrailingBytes(reader.len())) }
}

/// Appends a short string.
///
/// # Panics
/// If it has more than 255 bytes. All strings that we write were read as short strings, or were cut to the length
/// before.
#[inline]
pub fn put_short(out: &mut impl Put, bytes: &[u8]) {
    out.put_u8(u8::try_from(bytes.len()).expect("a short string has at most 255 bytes"));
    out.put(bytes);
}

/// Appends a long string.
#[inline]
pub fn put_long(out: &mut impl Put, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("a long string is shorter than 4 GiB"));
    out.put(bytes);
}
