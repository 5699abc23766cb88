//! The answers of a server in a conversation, as text. RabbitMQ's answers are recorded once, and FerryMQ's are compared
//! with them in each test.

use std::fmt;

use crate::notation::{Arguments, Term};
use crate::script::Step;

/// The text of a reply is for people, and FerryMQ's texts may differ. So the comparison leaves them out.
const NOT_COMPARED: &str = "reply-text";

/// The server's side of one conversation, with one line for each message. If a block differs on purpose, its lines are
/// indented after the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    lines: Vec<String>,
    in_difference: bool,
}

/// A transcript, and the server that it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    pub server: String,
    pub transcript: Transcript,
}

impl Transcript {
    pub(crate) fn add(&mut self, step: &Step, message: &str) {
        let indent = if self.in_difference { "  " } else { "" };
        self.lines.push(format!("{indent}S{}.{}: {message}", step.connection, step.channel));
    }

    pub(crate) fn begin_difference(&mut self, reason: &str) {
        self.lines.push(format!("differs: {reason}"));
        self.in_difference = true;
    }

    pub(crate) fn end_difference(&mut self) {
        self.in_difference = false;
    }

    /// The lines to compare. They do not include what differs on purpose: the script has these lines with their reason.
    fn compared(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str).filter(|line| !line.starts_with("  ") && !line.starts_with("differs: "))
    }
}

impl Recording {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (first, rest) = text.split_once('\n').ok_or("a recording must have a first line")?;
        let server = first.strip_prefix("# ").ok_or("a recording must begin with `# ` and the server's name")?;
        let lines = rest.lines().map(str::to_owned).collect();
        Ok(Self { server: server.to_owned(), transcript: Transcript { lines, in_difference: false } })
    }

    /// Compares the answers of another server with the recorded ones. The error is the first line that differs.
    pub fn compare(&self, transcript: &Transcript) -> Result<(), String> {
        let (mut theirs, mut ours) = (self.transcript.compared(), transcript.compared());
        loop {
            match (theirs.next(), ours.next()) {
                (None, None) => return Ok(()),
                (Some(theirs), Some(ours)) if same(theirs, ours) => {}
                (theirs, ours) => {
                    let (theirs, ours) = (theirs.unwrap_or("nothing"), ours.unwrap_or("nothing"));
                    return Err(format!("{} answered\n    {theirs}\n  and this server\n    {ours}", self.server));
                }
            }
        }
    }
}

fn same(theirs: &str, ours: &str) -> bool {
    theirs == ours || comparable(theirs) == comparable(ours)
}

fn comparable(line: &str) -> Option<(String, Vec<(String, Term)>)> {
    let (place, message) = line.split_once(": ")?;
    let mut arguments = Arguments::parse(message).ok()?;
    arguments.take(NOT_COMPARED);
    Some((format!("{place} {}", arguments.words.join(" ")), arguments.named))
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}", self.server)?;
        self.transcript.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(lines: &str) -> Recording {
        Recording::parse(&format!("# RabbitMQ 1\n{lines}")).unwrap()
    }

    #[test]
    fn the_words_of_a_reply_may_differ_but_not_its_code() {
        let theirs = recording("S1.1: channel.close reply-code=404 reply-text=\"gone\" class-id=50\n");
        let own_words = recording("S1.1: channel.close reply-code=404 reply-text=\"no queue\" class-id=50\n");
        let other_code = recording("S1.1: channel.close reply-code=406 reply-text=\"gone\" class-id=50\n");
        assert_eq!(theirs.compare(&own_words.transcript), Ok(()));
        assert!(theirs.compare(&other_code.transcript).is_err());
    }

    #[test]
    fn blocks_that_differ_by_intent_are_left_out() {
        let theirs = recording("S1.1: a\ndiffers: why\n  S1.1: eof\nS1.1: b\n");
        let ours = recording("S1.1: a\ndiffers: why\n  S1.0: c\n  S1.0: d\nS1.1: b\n");
        assert_eq!(theirs.compare(&ours.transcript), Ok(()));
        assert_eq!(recording(&theirs.to_string().replacen("# RabbitMQ 1\n", "", 1)), theirs);
    }

    #[test]
    fn a_missing_or_further_line_is_a_difference() {
        let theirs = recording("S1.1: a\n");
        assert!(theirs.compare(&recording("").transcript).is_err());
        assert!(theirs.compare(&recording("S1.1: a\nS1.1: b\n").transcript).is_err());
    }
}
