//! docs/configuration.md, as the options determine it, and the test that the committed page is the same.

use std::fmt::Write as _;

use super::{Configuration, OPTIONS, value::Form};

const OPENING: &str = "\
# Configuration

`ferrymq serve` runs without any configuration. What you want otherwise can be said in four places; what stands further
left wins:

| | flag | environment variable | configuration file | default |
|---|---|---|---|---|
| example | `--limits-channels-max 100` | `FERRYMQ_LIMITS_CHANNELS_MAX=100` | `limits.channels_max = 100` | 2047 |

The file is TOML. It is read when it is named, with `--config FILE` or `FERRYMQ_CONFIG=FILE`; no other place is searched.
An option that does not exist, or a value that it cannot take, stops the start with a message that says where it stands
and what is allowed. A variable that is set to nothing counts as not set; one that begins with `FERRYMQ_` and belongs to
no option is named in the log.

```toml
# ferrymq.toml
data_dir = \"/var/lib/ferrymq\"
listen = [\"amqp=0.0.0.0:5672\", \"http=127.0.0.1:15672\"]

[limits]
message_bytes_max = \"16 MiB\"
heartbeat_ms = 30000
```

Bytes can be written as a number or with KiB, MiB or GiB. A name that ends in `_ms` or `_us` counts milliseconds or
microseconds. In a variable, several listeners are separated by commas.

Without `listen`, every protocol opens on its own port, on 127.0.0.1 and, where the machine has it, on ::1: nothing is
reachable from other machines until you say so. The user `guest` can log in from this machine only, whatever is listened
on.

This page is made from the options' definitions; a test fails when it is not up to date.
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
