//! Runs a page's commands in one shell, and compares their output.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use super::block::{Block, ShownCommand};
use crate::workspace::Workspace;

/// What the shell runs before the first command: it sets up the page's own folders and network, the binary under
/// test, and a Python with pika.
///
/// A server runs in the background until the next server or the end of the page; the page continues when it has
/// printed `ready`.
const PRELUDE: &str = r#"
mount -t tmpfs none /tmp && ip link set lo up || exit 99
mkdir -p /tmp/page /tmp/bin && cd /tmp/page || exit 99
# Some of these files only root can read; no page needs them.
cp -r --preserve=mode /etc /tmp/etc 2>/dev/null
mount --bind /tmp/etc /etc && mount -t tmpfs none /var/lib || exit 99
ln -s "$FERRYMQ_UNDER_TEST" /tmp/bin/ferrymq
printf '#!/bin/sh\n[ "$*" = "run --release" ] && exec ferrymq serve\nexit 98\n' > /tmp/bin/cargo
printf '#!/bin/sh\nexec "%s" "$@"\n' "$PYTHON_WITH_CLIENTS" > /tmp/bin/python
chmod +x /tmp/bin/cargo /tmp/bin/python
export PATH="/tmp/bin:$PATH" HOME=/tmp/page
server=
stop() {
    [ -z "$server" ] || { kill "$server"; wait "$server"; } 2>/dev/null
    server=
}
serve() {
    stop
    "$@" > /tmp/server.out 2> /tmp/server.log &
    server=$!
    until grep -q '^ready$' /tmp/server.out; do
        kill -0 "$server" 2>/dev/null || { cat /tmp/server.log; server=; return 1; }
        sleep 0.05
    done
    cat /tmp/server.out
}
trap stop EXIT
"#;

/// A line that the shell prints after each command, with its number and exit code.
const MARK: &str = "::done";

/// A command with its own network and mounts.
pub fn apart() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount"]);
    command
}

/// Runs the blocks of a page, one after the other.
pub fn page(workspace: &Workspace, blocks: &[Block]) -> Result<(), String> {
    let mut script = PRELUDE.to_owned();
    let commands: Vec<(usize, &ShownCommand)> =
        blocks.iter().flat_map(|block| block.commands.iter().map(|command| (block.line, command))).collect();
    for (number, (_, command)) in commands.iter().enumerate() {
        let serves = ["ferrymq serve", "cargo run --release"].iter().any(|server| command.text.starts_with(server));
        let serve = if serves { "serve " } else { "" };
        write!(script, "{serve}{}\necho \"{MARK} {number} $?\"\n", command.text).expect("a text can be written to");
    }
    let mut shell = apart();
    shell.args(["bash", "-c", &script]).stdin(Stdio::null()).stderr(Stdio::piped());
    shell.env("FERRYMQ_UNDER_TEST", workspace.binary("ferrymq"));
    shell.env("PYTHON_WITH_CLIENTS", workspace.target.join("clients/python/bin/python"));
    // This network has no registry: pip uses what was downloaded before.
    shell.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", workspace.target.join("clients/wheels"));
    let output = shell.output().map_err(|why| format!("unshare: {why}"))?;
    let (printed, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut rest = &*printed;
    for (number, (line, command)) in commands.iter().enumerate() {
        let shown = command.text.lines().next().unwrap_or_default();
        let failed = |why: String| format!("line {line}: `{shown}` {why}\n{complaints}");
        let mark = format!("{MARK} {number} ");
        let (own, behind) = rest.split_once(&mark).ok_or_else(|| failed("did not end".to_owned()))?;
        let (code, behind) = behind.split_once('\n').unwrap_or((behind, ""));
        rest = behind;
        if code != "0" {
            return Err(failed(format!("ended with {code}:\n{own}")));
        }
        compare(&command.prints, own).map_err(failed)?;
    }
    Ok(())
}

/// Every line that the page shows must be printed, in that order; `...` stands for any lines.
fn compare(expected: &[String], printed: &str) -> Result<(), String> {
    let mut lines = printed.lines();
    for line in expected.iter().filter(|line| *line != "...") {
        if !lines.any(|printed| printed.trim() == line.trim()) {
            return Err(format!("has not printed `{line}` where the page shows it, but:\n{printed}"));
        }
    }
    let is_open = expected.is_empty() || expected.iter().any(|line| line == "...");
    match lines.next() {
        Some(more) if !is_open => Err(format!("has printed `{more}` behind what the page shows")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_compared_line_by_line() {
        let check = |expected: &[&str], printed: &str| {
            compare(&expected.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>(), printed).is_ok()
        };
        assert!(check(&["a", "b"], "a\nb\n") && check(&[], "anything\n") && check(&["...", "b"], "a\nb\nc\n"));
        assert!(!check(&["a"], "a\nb\n") && !check(&["b", "a"], "a\nb\n") && !check(&["c"], ""));
    }
}
