//! Names that the server chooses.

/// 22 characters that nobody can guess: `random` in base 64, with the letters that are safe in names and addresses.
pub fn random_text(random: u128) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..22).map(|at| char::from(LETTERS[(random >> (at * 6)) as usize & 63])).collect()
}
