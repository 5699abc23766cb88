//! The log on standard error: its level, which can change while the server runs, and its format.
//!
//! The log contains names that clients choose. Each field is escaped, so that a name cannot begin a new line or
//! send control characters to a terminal.

use std::fmt::{self, Debug, Write as _};
use std::io::{self, IsTerminal as _};

use tracing::Level;
use tracing::field::Field;
use tracing_subscriber::{
    Registry,
    field::MakeExt as _,
    filter::LevelFilter,
    fmt::format::{Writer, debug_fn},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

/// The log's level.
pub struct LogLevel(reload::Handle<LevelFilter, Registry>);

impl Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLevel")
    }
}

impl LogLevel {
    /// Starts logging; once per process.
    #[must_use]
    pub fn start(level: Level) -> Self {
        let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .fmt_fields(debug_fn(write_field).delimited(" "));
        tracing_subscriber::registry().with(filter).with(lines).init();
        Self(handle)
    }

    /// Sets the level.
    pub fn set(&self, level: Level) {
        if let Err(error) = self.0.modify(|filter| *filter = LevelFilter::from_level(level)) {
            tracing::error!("the log's level stays as it is: {error}");
        }
    }
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(Escaping(writer), "{value:?}")
}

/// Passes text on and escapes everything that is not printable.
struct Escaping<'a, 'b>(&'a mut Writer<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(must_be_escaped) {
            let (plain, from) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut characters = from.chars();
            write!(self.0, "{}", characters.next().expect("it was just found").escape_default())?;
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Control characters, other line separators, and characters that change the direction of text.
fn must_be_escaped(character: char) -> bool {
    let is_invisible = |code: u32| matches!(code, 0x2028..=0x202e | 0x2066..=0x2069 | 0x200e | 0x200f | 0xfeff);
    character.is_control() || is_invisible(u32::from(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        Escaping(&mut Writer::new(&mut out)).write_str(text).unwrap();
        out
    }

    #[test]
    fn a_name_stays_in_its_line_and_is_shown_as_it_is() {
        assert_eq!(escaped("x\nERROR y\r\u{1b}[31m"), "x\\nERROR y\\r\\u{1b}[31m");
        assert_eq!(escaped("a\u{2028}b\u{202e}c"), "a\\u{2028}b\\u{202e}c");
        assert_eq!(escaped("größe 'q' \"x\" 日本"), "größe 'q' \"x\" 日本");
    }
}
