//! Reads scripts. A line becomes a step. Steps that differ from RabbitMQ on purpose are in a block with the reason.

use crate::notation::{Arguments, Term};

/// A conversation, read from one file.
#[derive(Debug)]
pub struct Script {
    /// The name of the file without `.txt`: `016-topic`.
    pub name: String,
    pub(crate) parts: Vec<Part>,
}

#[derive(Debug)]
pub(crate) enum Part {
    Step(Step),
    /// A block in which FerryMQ's answer differs from RabbitMQ's, with the reason.
    Difference {
        reason: String,
        ours: Vec<Step>,
        theirs: Vec<Step>,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub line: usize,
    pub side: Side,
    pub connection: usize,
    pub channel: u16,
    /// The message may come in any order with the messages of neighbouring lines that have this mark, too.
    pub unordered: bool,
    pub verb: String,
    pub arguments: Arguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
    Time,
}

impl Script {
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for (index, raw) in text.lines().enumerate() {
            let failed = |why: String| format!("{name}:{}: {why}", index + 1);
            let line = raw.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if raw.starts_with("  ") {
                let block =
                    parts.last_mut().ok_or_else(|| failed("there is no block before this indented line".to_owned()))?;
                let step = Step::parse(index + 1, line).map_err(failed)?;
                add_to_block(block, step).map_err(|why| failed(why.to_owned()))?;
            } else if let Some(reason) = line.strip_prefix("ours: ") {
                let reason = reason.to_owned();
                parts.push(Part::Difference { reason, ours: Vec::new(), theirs: Vec::new() });
            } else if line == "theirs:" {
                parts.push(Part::Difference { reason: String::new(), ours: Vec::new(), theirs: Vec::new() });
            } else {
                parts.push(Part::Step(Step::parse(index + 1, line).map_err(failed)?));
            }
        }
        Ok(Self { name: name.to_owned(), parts: joined(parts).map_err(|why| format!("{name}: {why}"))? })
    }

    /// The reasons of all blocks in which FerryMQ differs from RabbitMQ.
    pub fn differences(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Difference { reason, .. } => Some(reason.as_str()),
            Part::Step(_) => None,
        })
    }

    /// The queues and exchanges that the script declares by name: `(method that deletes it, field, name)`.
    pub(crate) fn declared(&self) -> Vec<(&'static str, &'static str, String)> {
        let steps = self.parts.iter().flat_map(|part| match part {
            Part::Step(step) => std::slice::from_ref(step).iter().chain(&[]),
            Part::Difference { ours, theirs, .. } => ours.iter().chain(theirs),
        });
        let mut declared = Vec::new();
        for step in steps.filter(|step| step.side == Side::Client) {
            let (delete, field) = match step.verb.as_str() {
                "queue.declare" => ("queue.delete", "queue"),
                "exchange.declare" => ("exchange.delete", "exchange"),
                _ => continue,
            };
            let name = step.arguments.named.iter().find(|(name, _)| name == field).map(|(_, term)| term);
            let name = match name {
                Some(Term::Word(word)) => word.clone(),
                Some(Term::Text(text)) => String::from_utf8_lossy(text).into_owned(),
                _ => continue,
            };
            let entry = (delete, field, name);
            if !entry.2.is_empty() && !entry.2.starts_with("amq.") && !declared.contains(&entry) {
                declared.push(entry);
            }
        }
        declared
    }
}

/// Joins each `theirs:` block with the `ours:` block before it. They were read as separate blocks.
fn joined(parts: Vec<Part>) -> Result<Vec<Part>, &'static str> {
    let mut whole: Vec<Part> = Vec::new();
    for part in parts {
        match (whole.last_mut(), part) {
            (Some(Part::Difference { theirs, .. }), Part::Difference { reason, ours, .. }) if reason.is_empty() => {
                *theirs = ours;
            }
            (_, Part::Difference { reason, .. }) if reason.is_empty() => {
                return Err("`theirs:` must follow an `ours:` block");
            }
            (_, part) => whole.push(part),
        }
    }
    Ok(whole)
}

fn add_to_block(block: &mut Part, step: Step) -> Result<(), &'static str> {
    match block {
        Part::Difference { ours, .. } => {
            ours.push(step);
            Ok(())
        }
        Part::Step(_) => Err("only the lines of an `ours:` or `theirs:` block may be indented"),
    }
}

impl Step {
    fn parse(line: usize, text: &str) -> Result<Self, String> {
        let (who, rest) = text.split_once(':').ok_or("a line must be `C: ...`, `S: ...` or `T: ...`")?;
        let mut letters = who.chars();
        let side = match letters.next() {
            Some('C') => Side::Client,
            Some('S') => Side::Server,
            Some('T') => Side::Time,
            _ => return Err(format!("`{who}` is not C, S or T")),
        };
        let numbers = letters.as_str();
        let unordered = numbers.ends_with('*');
        let (connection, channel) = place(numbers.trim_end_matches('*'))?;
        let mut arguments = Arguments::parse(rest)?;
        if arguments.words.is_empty() {
            return Err("the line has no step".to_owned());
        }
        let verb = arguments.words.remove(0);
        Ok(Self { line, side, connection, channel, unordered, verb, arguments })
    }
}

/// Reads `2.3` as connection 2, channel 3. A missing number is 1.
fn place(text: &str) -> Result<(usize, u16), String> {
    let (connection, channel) = text.split_once('.').unwrap_or((text, "1"));
    let connection = if connection.is_empty() { "1" } else { connection };
    let read = |_| format!("`{text}` is not CONNECTION.CHANNEL");
    Ok((connection.parse().map_err(read)?, channel.parse().map_err(read)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_steps_and_blocks() {
        let text = "# title\nC: connect\nC2.3: queue.declare queue=q\nS*: x\n\nours: because\n  S: a\ntheirs:\n  S: b\n  S: c\nT: +5ms\n";
        let script = Script::parse("001-x", text).unwrap();
        assert_eq!(script.parts.len(), 5);
        let Part::Step(declare) = &script.parts[1] else { panic!("not a step") };
        assert_eq!((declare.connection, declare.channel, declare.line), (2, 3, 3));
        let Part::Step(unordered) = &script.parts[2] else { panic!("not a step") };
        assert!(unordered.unordered);
        let Part::Difference { ours, theirs, .. } = &script.parts[3] else { panic!("not a block") };
        assert_eq!((ours.len(), theirs.len()), (1, 2));
        assert_eq!(script.differences().collect::<Vec<_>>(), ["because"]);
        assert_eq!(script.declared(), [("queue.delete", "queue", "q".to_owned())]);
    }

    #[test]
    fn a_block_without_its_other_half_and_loose_lines_are_refused() {
        for text in ["theirs:\n  S: b\n", "C: connect\n  S: b\n", "X: y\n", "C:\n", "C1.x: y\n"] {
            assert!(Script::parse("x", text).is_err(), "{text}");
        }
    }
}
