//! The binary `ferrymq`.

fn main() {
    println!("ferrymq {}", env!("CARGO_PKG_VERSION"));
}
