//! The blocks of a page: the commands that they show, and what these print.
//!
//! In a ```` ```console ```` block each command begins with `$ `; the lines after it are what it prints, and `...`
//! stands for any lines. A server starts with each ```` ```toml ```` block as its configuration, and Python runs
//! each ```` ```python ```` block. A ```` ```text ```` block is not run. A block of any other language needs a
//! comment above it.
//!
//! The comments are: `<!-- not run: REASON -->`, `<!-- run last -->` for a block that needs the results of a later
//! block, `<!-- file: NAME -->` for a block of any language that the reader saves, and `<!-- before: CODE -->` for
//! a line of Python that the block needs and does not show. `<!-- run: COMMAND -->` is a hidden command.

/// A block with its commands.
#[derive(Debug, Default, PartialEq)]
pub struct Block {
    /// The number of its first line in the page.
    pub line: usize,
    pub commands: Vec<ShownCommand>,
    /// Whether it runs after all other blocks of the page.
    pub last: bool,
}

/// A command and its expected output.
#[derive(Debug, Default, PartialEq)]
pub struct ShownCommand {
    /// With the lines of its input (`<<'END'`).
    pub text: String,
    pub prints: Vec<String>,
}

/// A comment about the next block.
#[derive(Clone, Debug, PartialEq)]
enum Note {
    NotRun,
    Last,
    File(String),
    Before(String),
}

impl Block {
    /// All blocks of a page, in the order in which they run.
    pub fn all(page: &str) -> Result<Vec<Self>, String> {
        let mut blocks = Vec::new();
        let mut lines = page.lines().enumerate().map(|(index, line)| (index + 1, line));
        let mut note = None;
        while let Some((number, line)) = lines.next() {
            let said = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->"));
            if let Some(said) = said {
                match said.strip_prefix("run: ") {
                    Some(command) => blocks.push(Self::of_one(number, command.to_owned())),
                    None => note = read_note(said),
                }
                continue;
            }
            let Some(language) = line.strip_prefix("```") else {
                note = note.filter(|_| line.is_empty());
                continue;
            };
            let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            let last = note == Some(Note::Last);
            let commands =
                commands(language, &body, note.take(), number).map_err(|why| format!("line {number}: {why}"))?;
            blocks.push(Self { line: number, commands, last });
        }
        blocks.sort_by_key(|block| block.last);
        Ok(blocks)
    }

    fn of_one(line: usize, text: String) -> Self {
        Self { line, commands: vec![ShownCommand::silent(text)], last: false }
    }
}

impl ShownCommand {
    /// A command whose output the page does not show.
    fn silent(text: String) -> Self {
        Self { text, prints: Vec::new() }
    }
}

/// The commands of a block that begins at a line.
fn commands(language: &str, body: &[&str], note: Option<Note>, line: usize) -> Result<Vec<ShownCommand>, String> {
    let save = |name: &str| format!("cat > {name} <<'END_OF_FILE'\n{}\nEND_OF_FILE", body.join("\n"));
    match (note, language) {
        (Some(Note::NotRun), _) => Ok(Vec::new()),
        (Some(Note::File(name)), _) => Ok(vec![ShownCommand::silent(save(&name))]),
        (Some(Note::Before(code)), "python") => Ok(vec![python(&code, body)]),
        (Some(Note::Before(_)), _) => Err("`before` is for blocks of Python".to_owned()),
        (_, "console") => read_console(body),
        (_, "toml") => {
            let name = format!("of-line-{line}.toml");
            let serve = format!("ferrymq serve --config {name}");
            Ok(vec![ShownCommand::silent(save(&name)), ShownCommand::silent(serve)])
        }
        (_, "python") => Ok(vec![python("", body)]),
        (_, "text") => Ok(Vec::new()),
        (_, other) => Err(format!("a block of `{other}` is not run; say why above it: <!-- not run: REASON -->")),
    }
}

fn python(before: &str, body: &[&str]) -> ShownCommand {
    ShownCommand::silent(format!("python - <<'END_OF_PYTHON'\n{before}\n{}\nEND_OF_PYTHON", body.join("\n")))
}

fn read_note(said: &str) -> Option<Note> {
    match said.split_once(": ") {
        Some(("not run", reason)) if !reason.is_empty() => Some(Note::NotRun),
        Some(("file", name)) => Some(Note::File(name.to_owned())),
        Some(("before", code)) => Some(Note::Before(code.to_owned())),
        None if said == "run last" => Some(Note::Last),
        _ => None,
    }
}

fn read_console(body: &[&str]) -> Result<Vec<ShownCommand>, String> {
    let mut commands: Vec<ShownCommand> = Vec::new();
    let mut lines = body.iter();
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("$ ") {
            let mut text = text.to_owned();
            if let Some((_, end)) =
                text.split_once("<<'").and_then(|(_, rest)| rest.split_once('\'').map(|(end, _)| ((), end.to_owned())))
            {
                for line in lines.by_ref() {
                    text.push('\n');
                    text.push_str(line);
                    if **line == end {
                        break;
                    }
                }
            }
            commands.push(ShownCommand { text, prints: Vec::new() });
        } else {
            let command = commands.last_mut().ok_or("the first line of a console block is `$ COMMAND`")?;
            command.prints.push((*line).to_owned());
        }
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_with_their_notes() {
        let page = "# Title\n\n```console\n$ cat > x <<'END'\n$ not a command\nEND\n$ cat x\n$ not a command\n```\n\n\
                    <!-- not run: it wants systemd -->\n```console\n$ systemctl start\n```\n\n\
                    <!-- file: a.toml -->\n```toml\nthreads = 2\n```\n<!-- run: ferrymq serve --config a.toml -->\n\n\
                    ```text\nwhat is logged\n```\n";
        let blocks = run_blocks(page);
        assert_eq!(blocks.len(), 3);
        assert_eq!(blocks[0].line, 3);
        assert_eq!(blocks[0].commands[0].text, "cat > x <<'END'\n$ not a command\nEND");
        assert_eq!(blocks[0].commands.len(), 3, "the last line is read as a command, as readers would");
        assert!(blocks[1].commands[0].text.starts_with("cat > a.toml <<'END_OF_FILE'\nthreads = 2\n"));
        assert_eq!(blocks[2].commands[0].text, "ferrymq serve --config a.toml");
    }

    fn run_blocks(page: &str) -> Vec<Block> {
        let mut blocks = Block::all(page).unwrap();
        blocks.retain(|block| !block.commands.is_empty());
        blocks
    }

    #[test]
    fn toml_starts_a_server_and_python_runs() {
        let page = "```toml\nthreads = 2\n```\n<!-- before: import pika -->\n```python\npika.x()\n```\n";
        let blocks = run_blocks(page);
        assert!(blocks[0].commands[0].text.starts_with("cat > of-line-1.toml <<'END_OF_FILE'\nthreads = 2\n"));
        assert_eq!(blocks[0].commands[1].text, "ferrymq serve --config of-line-1.toml");
        assert_eq!(blocks[1].commands[0].text, "python - <<'END_OF_PYTHON'\nimport pika\npika.x()\nEND_OF_PYTHON");
    }

    #[test]
    fn a_block_that_is_not_run_says_why() {
        assert!(Block::all("```json\n{}\n```\n").unwrap_err().contains("`json` is not run; say why"));
        assert!(Block::all("```\nferrymq serve\n```\n").is_err());
        assert!(Block::all("<!-- not run: -->\n```json\n{}\n```\n").is_err(), "without a reason");
        assert!(Block::all("<!-- not run: it is a part -->\n```json\n{}\n```\n").is_ok());
        assert!(Block::all("<!-- before: import pika -->\n```toml\n```\n").is_err());
    }

    #[test]
    fn a_block_that_needs_later_ones_runs_last_and_prints_are_kept() {
        let page = "<!-- run last -->\n```console\n$ a\none\n...\n```\n\n```console\n$ b\n```\n";
        let blocks = Block::all(page).unwrap();
        assert_eq!(blocks[0].commands[0].text, "b");
        assert_eq!(blocks[1].commands[0].prints, ["one", "..."]);
        assert!(Block::all("```console\nno command\n```\n").is_err());
    }
}
