//! `LIKE`: patterns with `%` for any characters and `_` for one.

/// A pattern, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Part>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Character(char),
    AnyCharacter,
    AnyCharacters,
}

impl Pattern {
    /// Behind `escape` a character stands for itself; at the end the escape stands for itself, too.
    pub(super) fn new(text: &str, escape: Option<char>) -> Self {
        let mut parts = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            parts.push(match character {
                _ if Some(character) == escape => Part::Character(characters.next().unwrap_or(character)),
                '_' => Part::AnyCharacter,
                '%' => Part::AnyCharacters,
                _ => Part::Character(character),
            });
        }
        Self(parts)
    }

    /// Whether all of `text` is like this. Only the last `%` is ever tried again, so the time is at most the product of
    /// the two lengths.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.as_slice();
        let mut rest = text.chars();
        // What stands behind the last `%`, and what of the text is left when that takes one character more.
        let mut again = None;
        loop {
            match parts.split_first() {
                Some((Part::AnyCharacters, behind)) => {
                    again = Some((behind, rest.clone()));
                    parts = behind;
                    continue;
                }
                Some((part, behind)) => {
                    let character = rest.next();
                    let fits = match part {
                        Part::Character(wanted) => character == Some(*wanted),
                        _ => character.is_some(),
                    };
                    if fits {
                        parts = behind;
                        continue;
                    }
                }
                None if rest.as_str().is_empty() => return true,
                None => {}
            }
            let Some((behind, from)) = &mut again else { return false };
            if from.next().is_none() {
                return false;
            }
            (parts, rest) = (*behind, from.clone());
        }
    }
}
