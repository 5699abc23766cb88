//! docs/configuration.md, generated from the options, and the test that the committed page is up to date.

use std::fmt::Write as _;

use super::{Configuration, OPTIONS, value::Form};

const OPENING: &str = "\
# Configuration

`ferrymq serve` runs without any configuration. You can set each option in three places. If you set it in more than one of them,
the one further left in this table counts:

| | flag | environment variable | configuration file | default |
|---|---|---|---|---|
| example | `--limits-channels-max 100` | `FERRYMQ_LIMITS_CHANNELS_MAX=100` | `limits.channels_max = 100` | 2047 |

The file is TOML. FerryMQ reads it only when you name it, with `--config FILE` or `FERRYMQ_CONFIG=FILE`. An unknown option, or a
value that the option does not accept, stops the start. The error says where the mistake is and which values are allowed. An
empty variable counts as not set. When a variable begins with `FERRYMQ_` and belongs to no option, the log names it.

```toml
# ferrymq.toml
data_dir = \"/var/lib/ferrymq\"
listen = [\"amqp=0.0.0.0:5672\", \"http=127.0.0.1:15672\"]

[limits]
message_bytes_max = \"16 MiB\"
heartbeat_ms = 30000
```

Write bytes as a number, or with KiB, MiB or GiB. Options whose names end in `_ms` or `_us` count milliseconds or microseconds.
In a variable, separate several listeners with commas.

Without `listen`, every protocol opens on its own port, on 127.0.0.1 and, if the machine has it, on ::1. Other machines cannot
connect until you change that. As soon as you give one `listen`, only the given listeners open; name `http` beside `amqp` if you
want the health checks. The user `guest` can log in from the same machine only, whatever the listeners are.

This page is generated from the definitions of the options. A test fails when it is not up to date.
";

/// The page.
fn page() -> String {
    let mut page = OPENING.to_owned();
    let defaults = Configuration::default();
    let mut table = None;
    for option in OPTIONS {
        if table.replace(option.table()) != Some(option.table()) {
            let title = match option.table() {
                "" => "The server".to_owned(),
                name => format!("`[{name}]`"),
            };
            write!(page, "\n## {title}\n").expect("a text can be written to");
        }
        let flag = format!("{} {}", option.flag(), option.form.placeholder());
        write!(page, "\n**`{}`** · `{flag}` · `{}`  \n{}.", option.key, option.variable(), option.text)
            .expect("a text can be written to");
        let default = option.show(&defaults);
        write!(page, " Default: `{default}`.").expect("a text can be written to");
        match (&option.form, option.form.allowed()) {
            (_, allowed) if allowed.is_empty() => {}
            (Form::Number(..), allowed) => write!(page, " Allowed: {allowed}.").expect("a text can be written to"),
            (_, allowed) => write!(page, " One of {allowed}.").expect("a text can be written to"),
        }
        page.push('\n');
    }
    page
}

/// `BLESS=1 cargo test -p ferrymq-server configuration` writes the page.
#[test]
fn the_page_says_what_the_options_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == page(), "docs/configuration.md is not up to date: BLESS=1 cargo test -p ferrymq-server page");
}
