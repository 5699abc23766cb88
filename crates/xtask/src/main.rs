//! `cargo x`: the one door for developers.

fn main() {
    println!("usage: cargo x COMMAND");
}
