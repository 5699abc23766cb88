//! The notation of values and expectations in scripts: `queue=q`, `body="a\x00b"*3`, `headers={n=l:5 s="x"}`,
//! `queue=$name`.
//!
//! The meaning of a word depends on its field: `expiration=5` is text, `delivery-mode=2` is a number. So a word is kept
//! as text until the type of the field is known.

use std::collections::BTreeMap;

use crate::spec::FieldKind;
use crate::value::{Item, Table, Value};

/// The values that a script has captured under a name: `$queue`.
pub type Captures = BTreeMap<String, Value>;

/// The value or the expectation that a script has for a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// `*`
    Any,
    /// `absent`: the property must not exist.
    Absent,
    /// A word that contains `*`, which matches any characters.
    Glob(String),
    /// `$name`. If the name is new, it takes the value; if not, the value must be equal. `$name:TERM` also checks TERM.
    Capture(String, Box<Term>),
    Word(String),
    Text(Vec<u8>),
    Table(Table),
    /// `{... a=1}`: a table with these entries, and perhaps others.
    PartOfTable(Table),
}

/// The words of a line without a name, and then its `name=term` pairs in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arguments {
    pub words: Vec<String>,
    pub named: Vec<(String, Term)>,
}

impl Arguments {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut cursor = Cursor { rest: text };
        let mut arguments = Self::default();
        loop {
            cursor.skip_blanks();
            if cursor.rest.is_empty() {
                return Ok(arguments);
            }
            let word = cursor.word();
            if !word.is_empty() && cursor.take('=') {
                arguments.named.push((word, cursor.term()?));
            } else if word.is_empty() {
                return Err(format!("cannot read `{}`", cursor.rest));
            } else {
                arguments.words.push(word);
            }
        }
    }

    /// Removes and returns the term with this name.
    pub fn take(&mut self, name: &str) -> Option<Term> {
        let index = self.named.iter().position(|(found, _)| found == name)?;
        Some(self.named.remove(index).1)
    }
}

impl Term {
    /// The value to send in a field of this type.
    pub fn resolve(&self, kind: FieldKind, captures: &Captures) -> Result<Value, String> {
        match self {
            Self::Capture(name, _) => {
                captures.get(name).cloned().ok_or_else(|| format!("there is no captured value ${name}"))
            }
            Self::Word(word) => word_as(word, kind),
            Self::Glob(text) => word_as(text, kind),
            Self::Text(bytes) => Ok(Value::Text(bytes.clone())),
            Self::Table(table) => Ok(Value::Table(table.clone())),
            Self::Any | Self::Absent | Self::PartOfTable(_) => {
                Err("`*`, `absent` and `{...` can only be expected, not sent".to_owned())
            }
        }
    }

    /// Whether a received value is the expected one. If the term captures it under a new name, the value is kept.
    pub fn matches(&self, kind: FieldKind, value: Option<&Value>, captures: &mut Captures) -> bool {
        match (self, value) {
            (Self::Absent, value) => value.is_none(),
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Glob(pattern), Some(Value::Text(bytes))) => glob(pattern.as_bytes(), bytes),
            (Self::Capture(name, inner), Some(value)) => {
                if !inner.matches(kind, Some(value), captures) {
                    return false;
                }
                captures.entry(name.clone()).or_insert_with(|| value.clone()) == value
            }
            (Self::PartOfTable(part), Some(Value::Table(whole))) => is_part(part, whole),
            (term, Some(value)) => term.resolve(kind, captures).is_ok_and(|expected| expected == *value),
        }
    }
}

/// Whether the entries of `part` are in `whole`. Inner tables may also have more entries in `whole`.
fn is_part(part: &Table, whole: &Table) -> bool {
    part.iter()
        .all(|(name, expected)| whole.iter().any(|(found, item)| found == name && is_part_of_item(expected, item)))
}

/// Whether an item is as expected. Arrays must have the same length; tables in them may have more entries.
fn is_part_of_item(part: &Item, whole: &Item) -> bool {
    match (part, whole) {
        (Item::Table(part), Item::Table(whole)) => is_part(part, whole),
        (Item::Array(part), Item::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(part, whole)| is_part_of_item(part, whole))
        }
        _ => part == whole,
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skipped| glob(rest, &text[skipped..])),
        ([expected, pattern @ ..], [found, text @ ..]) => expected == found && glob(pattern, text),
        _ => false,
    }
}

fn word_as(word: &str, kind: FieldKind) -> Result<Value, String> {
    match kind {
        FieldKind::Bit => match word {
            "true" => Ok(Value::Bit(true)),
            "false" => Ok(Value::Bit(false)),
            _ => Err(format!("`{word}` is not true or false")),
        },
        FieldKind::Octet | FieldKind::Short | FieldKind::Long | FieldKind::LongLong => {
            word.parse().map(Value::Number).map_err(|why| format!("`{word}`: {why}"))
        }
        FieldKind::ShortText | FieldKind::LongText => Ok(Value::Text(word.as_bytes().to_vec())),
        FieldKind::Table => Err(format!("`{word}` is not a table")),
    }
}

struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, letter: char) -> bool {
        match self.rest.strip_prefix(letter) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, letter: char) -> Result<(), String> {
        if self.take(letter) { Ok(()) } else { Err(format!("expected `{letter}` before `{}`", self.rest)) }
    }

    fn word(&mut self) -> String {
        let is_end = |letter: char| letter.is_whitespace() || "=\"{}[]".contains(letter);
        let (word, rest) = self.rest.split_at(self.rest.find(is_end).unwrap_or(self.rest.len()));
        self.rest = rest;
        word.to_owned()
    }

    fn term(&mut self) -> Result<Term, String> {
        if self.rest.starts_with('"') {
            return Ok(Term::Text(self.quoted()?));
        }
        if self.take('{') {
            self.skip_blanks();
            let part = self.rest.strip_prefix("...").map(|rest| self.rest = rest).is_some();
            let table = self.table_body()?;
            return Ok(if part { Term::PartOfTable(table) } else { Term::Table(table) });
        }
        if self.take('$') {
            let word = self.word();
            let (name, inner) = match word.split_once(':') {
                Some((name, inner)) => (name.to_owned(), plain_term(inner)),
                None => (word, Term::Any),
            };
            return Ok(Term::Capture(name, Box::new(inner)));
        }
        Ok(plain_term(&self.word()))
    }

    /// `"text"` with Rust's escapes for bytes. It may be repeated: `"x"*100`.
    fn quoted(&mut self) -> Result<Vec<u8>, String> {
        self.expect('"')?;
        let mut bytes = Vec::new();
        loop {
            let letter = self.next()?;
            match letter {
                '"' => break,
                '\\' => bytes.push(self.escape()?),
                _ => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if self.take('*') {
            let count: usize = self.word().parse().map_err(|why| format!("a count after `*`: {why}"))?;
            bytes = bytes.repeat(count);
        }
        Ok(bytes)
    }

    fn escape(&mut self) -> Result<u8, String> {
        match self.next()? {
            'n' => Ok(b'\n'),
            'r' => Ok(b'\r'),
            't' => Ok(b'\t'),
            '0' => Ok(0),
            'x' => {
                let digits: String = [self.next()?, self.next()?].iter().collect();
                u8::from_str_radix(&digits, 16).map_err(|why| format!("\\x{digits}: {why}"))
            }
            letter if letter.is_ascii() => Ok(letter as u8),
            letter => Err(format!("there is no escape `\\{letter}`")),
        }
    }

    fn next(&mut self) -> Result<char, String> {
        let letter = self.rest.chars().next().ok_or("the line ends too soon")?;
        self.rest = &self.rest[letter.len_utf8()..];
        Ok(letter)
    }

    fn table_body(&mut self) -> Result<Table, String> {
        let mut table = Table::new();
        loop {
            self.skip_blanks();
            if self.take('}') {
                return Ok(table);
            }
            let name = if self.rest.starts_with('"') {
                String::from_utf8_lossy(&self.quoted()?).into_owned()
            } else {
                self.word()
            };
            self.expect('=')?;
            table.push((name, self.item()?));
        }
    }

    fn item(&mut self) -> Result<Item, String> {
        if self.rest.starts_with('"') {
            return Ok(Item::Text(b'S', self.quoted()?));
        }
        if self.take('{') {
            return Ok(Item::Table(self.table_body()?));
        }
        if self.take('[') {
            let mut items = Vec::new();
            loop {
                self.skip_blanks();
                if self.take(']') {
                    return Ok(Item::Array(items));
                }
                items.push(self.item()?);
            }
        }
        let word = self.word();
        if word == "x:" || word == "S:" {
            return Ok(Item::Text(word.as_bytes()[0], self.quoted()?));
        }
        plain_item(&word).ok_or_else(|| format!("`{word}` is not a value of a table"))
    }
}

fn plain_term(word: &str) -> Term {
    match word {
        "*" => Term::Any,
        "absent" => Term::Absent,
        _ if word.contains('*') => Term::Glob(word.to_owned()),
        _ => Term::Word(word.to_owned()),
    }
}

/// Reads `5`, `true`, `void`, `text`, or a value after its type octet: `l:5`.
fn plain_item(word: &str) -> Option<Item> {
    match word {
        "true" => return Some(Item::Bool(true)),
        "false" => return Some(Item::Bool(false)),
        "void" => return Some(Item::Void),
        _ => {}
    }
    let Some((tag, text)) = word.split_once(':').filter(|(tag, _)| tag.len() == 1) else {
        let number = word.parse().ok().map(|number: i32| Item::Signed(b'I', number.into()));
        return number.or_else(|| Some(Item::Text(b'S', word.as_bytes().to_vec())));
    };
    Some(match tag.as_bytes()[0] {
        tag @ (b'b' | b's' | b'I' | b'l' | b'L') => Item::Signed(tag, text.parse().ok()?),
        tag @ (b'B' | b'u' | b'i' | b'T') => Item::Unsigned(tag, text.parse().ok()?),
        b'f' => Item::Float(text.parse().ok()?),
        b'd' => Item::Double(text.parse().ok()?),
        b'D' => {
            let (scale, number) = text.split_once('/')?;
            Item::Decimal(scale.parse().ok()?, number.parse().ok()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Arguments {
        Arguments::parse(text).unwrap()
    }

    #[test]
    fn a_line_is_words_and_named_terms() {
        let line = parse(r#"confirmed 1-5 queue=q body="a\x00b"*2 tag=$t id=amq.gen-* n=* x=absent"#);
        assert_eq!(line.words, ["confirmed", "1-5"]);
        let terms: Vec<Term> = line.named.into_iter().map(|(_, term)| term).collect();
        assert_eq!(
            terms,
            [
                Term::Word("q".to_owned()),
                Term::Text(b"a\0ba\0b".to_vec()),
                Term::Capture("t".to_owned(), Box::new(Term::Any)),
                Term::Glob("amq.gen-*".to_owned()),
                Term::Any,
                Term::Absent,
            ]
        );
    }

    #[test]
    fn a_table_is_shown_as_it_is_written() {
        let text = r#"{a=5 b=l:6 c=true d="x y" e=[1 "z"] f={g=void} h=D:2/314 i=x:"\x00" j=d:1.5 k=T:7}"#;
        let Some(Term::Table(table)) = parse(&format!("t={text}")).take("t") else { panic!("not a table") };
        assert_eq!(Value::Table(table).to_string(), text);
    }

    #[test]
    fn a_capture_is_taken_once_and_compared_afterwards() {
        let mut captures = Captures::new();
        let term = parse("q=$name:amq.*").take("q").unwrap();
        let text = |text: &str| Value::Text(text.as_bytes().to_vec());
        assert!(!term.matches(FieldKind::ShortText, Some(&text("other")), &mut captures));
        assert!(term.matches(FieldKind::ShortText, Some(&text("amq.gen-1")), &mut captures));
        assert!(!term.matches(FieldKind::ShortText, Some(&text("amq.gen-2")), &mut captures));
        assert_eq!(term.resolve(FieldKind::ShortText, &captures), Ok(text("amq.gen-1")));
    }

    #[test]
    fn part_of_a_table_matches_in_depth() {
        let mut captures = Captures::new();
        let term = parse("t={... a={b=1} l=[{d=4}]}").take("t").unwrap();
        let Some(Term::Table(whole)) = parse("t={z=2 a={c=3 b=1} l=[{e=5 d=4}]}").take("t") else {
            panic!("not a table")
        };
        assert!(term.matches(FieldKind::Table, Some(&Value::Table(whole)), &mut captures));
        let Some(Term::Table(longer)) = parse("t={a={b=1} l=[{d=4} {d=4}]}").take("t") else { panic!("not a table") };
        assert!(!term.matches(FieldKind::Table, Some(&Value::Table(longer)), &mut captures));
        assert!(!term.matches(FieldKind::Table, Some(&Value::Table(Table::new())), &mut captures));
    }

    #[test]
    fn unfinished_lines_are_refused() {
        for line in [r#"body="open"#, "t={a=1", "t={a}", "=5", r#"b="\q\x1"#] {
            assert!(Arguments::parse(line).is_err(), "{line}");
        }
    }
}
