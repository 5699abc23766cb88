//! Patterns for names, in policies and permissions: regular expressions as RabbitMQ's users write them, compiled
//! once.
//!
//! Patterns without look-around are matched in linear time. Look-around (`^(?!amq\.)`) needs a backtracking engine.
//! It has a step limit, so that a name never costs more than about a millisecond. A name that reaches the limit
//! does not match.

use std::borrow::Cow;

use regex::Regex;

/// The step limit of the backtracking engine for one name. An ordinary pattern takes a few dozen steps.
const STEPS_MAX: usize = 50_000;

/// A compiled pattern. It is not anchored: it matches any part of the name.
#[derive(Debug)]
pub(super) enum Pattern {
    /// `.*`, which is by far the most frequent.
    All,
    Plain(Regex),
    LookAround(Box<fancy_regex::Regex>),
}

impl Pattern {
    /// # Errors
    /// The error of the expression, in one line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == ".*" {
            return Ok(Self::All);
        }
        let text = without_quotes(text);
        let why = match Regex::new(&text) {
            Ok(plain) => return Ok(Self::Plain(plain)),
            Err(why) => why,
        };
        match fancy_regex::RegexBuilder::new(&text).backtrack_limit(STEPS_MAX).build() {
            Ok(look_around) => Ok(Self::LookAround(Box::new(look_around))),
            // The first engine does not support look-around at all, so its error does not help.
            Err(why) if ["(?=", "(?!", "(?<"].iter().any(|group| text.contains(group)) => Err(last_line(&why)),
            Err(_) => Err(last_line(&why)),
        }
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Plain(plain) => plain.is_match(name),
            Self::LookAround(look_around) => look_around.is_match(name).unwrap_or(false),
        }
    }
}

/// Some errors show the position below the expression, on their own lines; the last line says what is wrong.
fn last_line(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// The expression with the part between `\Q` and `\E` escaped, which the engines do not support.
fn without_quotes(text: &str) -> Cow<'_, str> {
    if !text.contains(r"\Q") {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        if let Some(quoted) = escape.strip_prefix(r"\Q") {
            let (quoted, behind) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(quoted));
            rest = behind;
        } else {
            let mut characters = escape.char_indices();
            let end = characters.nth(2).map_or(escape.len(), |(end, _)| end);
            out.push_str(&escape[..end]);
            rest = &escape[end..];
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}")).matches(name)
    }

    #[test]
    fn patterns_of_rabbitmqs_users_are_understood() {
        for (pattern, fits, does_not) in [
            (r"^(?!amq\.).*", "q", "amq.gen-x"),
            (r"^(?!(amq\.)|(.*_fanout_)|(reply_)).*", "q", "a_fanout_b"),
            (r"^(.*(?<![E|e]rror))?$", "q", "q.error"),
            (r"^(?!federation:|mqtt-).+$", "q", "federation: q"),
            (r"^q(?=$)", "q", "qq"),
            (r"^(?:q)\Z", "q", "qq"),
            (r"^[[:alpha:]]$", "q", "1"),
            (r"(?i)^Q$", "q", "r"),
            (r"^\Qa.b\E$", "a.b", "axb"),
            (r"^\\Q$", "\\Q", "Q"),
            (r"^\d\Q*", "1*", "1"),
            (r"(?i)^(?!x)Ä", "ä", "x"),
        ] {
            assert!(matches(pattern, fits), "{pattern} does not match {fits}");
            assert!(!matches(pattern, does_not), "{pattern} matches {does_not}");
        }
        assert!(matches("", "anything") && matches(".*", ""));
        assert!(matches!(Pattern::parse("^a+$"), Ok(Pattern::Plain(_))), "look-around costs only who uses it");
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (wrong, expected) in [
            ("(", "unclosed group"),
            ("^(?!amq", "Parsing error at position 7: Opening parenthesis without closing parenthesis"),
            ("[z-a]", "invalid character class range, the start must be <= the end"),
        ] {
            assert_eq!(Pattern::parse(wrong).unwrap_err(), expected);
        }
    }

    /// It would take 2^60 steps. The test shows that matching ends.
    #[test]
    fn a_hostile_pattern_ends_and_does_not_match() {
        assert!(!matches(r"^(?=(a+)+$)(?!x)(a|aa)+(?<!b)$", &format!("{}!", "a".repeat(200))));
        assert!(!matches(r"^((a|a)*)*(?=b)\1$", &"a".repeat(250)));
    }
}
