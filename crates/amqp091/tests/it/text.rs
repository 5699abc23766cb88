//! Frames as text for people: `queue.declare queue=hello durable`. The code uses the table in `spec/` and not the
//! codec.
//!
//! Fields that are zero, empty or false are left out. A table is written as `{key=1,other="text",third=true}`.

use std::{collections::BTreeMap, fmt::Write, sync::LazyLock};

use ferrymq_wire::{Put, Reader};

/// A method in the table.
pub struct Row {
    pub name: String,
    pub class: u16,
    pub method: u16,
    /// The name and the type of each field.
    pub fields: Vec<(String, String)>,
}

pub static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let spec: toml::Table = include_str!("../../../../spec/amqp091.toml").parse().unwrap();
    let mut rows = Vec::new();
    for (class_name, class) in spec["class"].as_table().unwrap() {
        for method in class["methods"].as_array().unwrap() {
            let fields = method["fields"].as_str().unwrap().split_whitespace();
            let fields = fields.map(|field| field.split_once(':').unwrap()).map(|(n, t)| (n.to_owned(), t.to_owned()));
            rows.push(Row {
                name: format!("{class_name}.{}", method["name"].as_str().unwrap()),
                class: class["id"].as_integer().unwrap() as u16,
                method: method["id"].as_integer().unwrap() as u16,
                fields: fields.collect(),
            });
        }
    }
    rows
});

/// Reads octets in hexadecimal. `"text"` means its bytes, and `N*OCTET` means an octet that comes N times.
pub fn hex(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for word in text.split_whitespace() {
        if let Some(text) = word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
            octets.extend(text.as_bytes());
        } else if let Some((count, octet)) = word.split_once('*') {
            let octet = u8::from_str_radix(octet, 16).unwrap();
            octets.extend(std::iter::repeat_n(octet, count.parse().unwrap()));
        } else {
            octets.extend((0..word.len()).step_by(2).map(|at| u8::from_str_radix(&word[at..at + 2], 16).unwrap()));
        }
    }
    octets
}

/// The frame that a line describes. Methods and content are on `channel`; the connection's own methods are on channel
/// 0.
pub fn frame(line: &str, channel: u16) -> Vec<u8> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "header" => b"AMQP\x00\x00\x09\x01".to_vec(),
        "raw" => hex(rest),
        "heartbeat" => framed(8, if rest == "channel" { channel } else { 0 }, &[]),
        "content" => {
            let (bytes, properties) = rest.split_once(' ').unwrap_or((rest, "0000"));
            let mut payload = vec![0, 60, 0, 0];
            payload.put_u64(bytes.parse().unwrap());
            payload.put(&hex(properties));
            framed(2, channel, &payload)
        }
        "body" => framed(3, channel, rest.as_bytes()),
        name => {
            let row = ROWS.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no method {name}"));
            framed(1, if row.class == 10 && channel == 1 { 0 } else { channel }, &payload(row, rest))
        }
    }
}

fn framed(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.put_u16(channel);
    out.put_u32(payload.len() as u32);
    out.put(payload);
    out.put_u8(206);
    out
}

fn payload(row: &Row, fields: &str) -> Vec<u8> {
    let mut values: BTreeMap<&str, &str> =
        words(fields).into_iter().map(|word| word.split_once('=').unwrap_or((word, "true"))).collect();
    let mut out = [row.class.to_be_bytes(), row.method.to_be_bytes()].concat();
    for run in row.fields.chunk_by(|a, b| a.1 == "bit" && b.1 == "bit") {
        if run[0].1 == "bit" {
            let bit =
                |at: usize, values: &mut BTreeMap<_, _>| u8::from(values.remove(run[at].0.as_str()).is_some()) << at;
            out.push((0..run.len()).fold(0, |octet, at| octet | bit(at, &mut values)));
        } else {
            put(&mut out, &run[0].1, values.remove(run[0].0.as_str()).unwrap_or_default());
        }
    }
    assert!(values.is_empty(), "{} has no {values:?}", row.name);
    out
}

/// Splits at spaces outside of quotes.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices().chain([(text.len(), ' ')]) {
        quoted ^= character == '"';
        if character == ' ' && !quoted {
            words.extend((start < at).then(|| &text[start..at]));
            start = at + 1;
        }
    }
    words
}

/// Replaces the escapes `\0`, `\n`, and `\xNN` for an octet below 128.
fn unescaped(text: &str) -> String {
    let mut pieces = text.split('\\');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let (octet, rest) = match piece.split_at(1) {
            ("0", rest) => (0, rest),
            ("n", rest) => (b'\n', rest),
            ("x", rest) => (u8::from_str_radix(&rest[..2], 16).unwrap(), &rest[2..]),
            _ => panic!("no escape in {piece}"),
        };
        format!("{text}{}{rest}", char::from(octet))
    })
}

fn put(out: &mut Vec<u8>, kind: &str, value: &str) {
    let text = unescaped(value.trim_matches('"'));
    let number = || if value.is_empty() { 0 } else { value.parse::<u64>().unwrap_or_else(|_| panic!("{value}")) };
    match kind {
        "octet" => out.put_u8(number() as u8),
        "short" => out.put_u16(number() as u16),
        "long" => out.put_u32(number() as u32),
        "shortstr" => {
            out.put_u8(text.len() as u8);
            out.put(text.as_bytes());
        }
        "longstr" => {
            out.put_u32(text.len() as u32);
            out.put(text.as_bytes());
        }
        "table" => {
            put_table(out, value.trim_start_matches('{').trim_end_matches('}'));
        }
        _ => out.put_u64(number()),
    }
}

fn put_table(out: &mut Vec<u8>, text: &str) {
    let mut bytes = Vec::new();
    put_entries(&mut bytes, text);
    out.put_u32(bytes.len() as u32);
    out.put(&bytes);
}

/// Writes entries that are separated by commas. The last entry of a table may be another table.
fn put_entries(out: &mut Vec<u8>, entries: &str) {
    let mut rest = entries;
    while let Some((key, after)) = rest.split_once('=') {
        out.put_u8(key.len() as u8);
        out.put(key.as_bytes());
        let (value, next) = match after.strip_prefix('{') {
            Some(inner) => (inner, ""),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        rest = next;
        if after.starts_with('{') {
            out.put_u8(b'F');
            put_table(out, value);
        } else if let Ok(number) = value.parse::<i32>() {
            out.put_u8(b'I');
            out.put_u32(number as u32);
        } else if let Ok(bool) = value.parse::<bool>() {
            out.put(&[b't', bool.into()]);
        } else {
            out.put_u8(b'S');
            put(out, "longstr", value);
        }
    }
}

/// The lines that describe the frames in `bytes`, each with its channel.
pub fn lines(bytes: &[u8]) -> Vec<(u16, String)> {
    let mut reader = Reader::new(bytes);
    let mut lines = Vec::new();
    while !reader.is_empty() {
        if reader.rest().starts_with(b"AMQP") {
            assert_eq!(reader.bytes(8).unwrap(), b"AMQP\x00\x00\x09\x01");
            lines.push((1, "header".to_owned()));
            continue;
        }
        let (kind, channel, length) = (reader.u8().unwrap(), reader.u16().unwrap(), reader.u32().unwrap());
        let payload = reader.bytes(length as usize).unwrap();
        assert_eq!(reader.u8(), Ok(206), "a frame ends with its end octet");
        let line = match kind {
            1 => method_line(payload),
            2 => content_line(payload),
            3 => format!("body {}", String::from_utf8_lossy(payload)),
            _ => "heartbeat".to_owned(),
        };
        lines.push((channel, line));
    }
    lines
}

fn content_line(payload: &[u8]) -> String {
    let mut reader = Reader::new(payload);
    assert_eq!(reader.u32(), Ok(60 << 16));
    let mut line = format!("content {}", reader.u64().unwrap());
    if reader.rest() != [0, 0] {
        line.push(' ');
        reader.rest().iter().for_each(|octet| write!(line, "{octet:02X}").unwrap());
    }
    line
}

fn method_line(payload: &[u8]) -> String {
    let mut reader = Reader::new(payload);
    let (class, method) = (reader.u16().unwrap(), reader.u16().unwrap());
    let row = ROWS.iter().find(|row| (row.class, row.method) == (class, method)).unwrap();
    let mut line = row.name.clone();
    for run in row.fields.chunk_by(|a, b| a.1 == "bit" && b.1 == "bit") {
        if run[0].1 == "bit" {
            let octet = reader.u8().unwrap();
            let set = run.iter().enumerate().filter(|(at, _)| octet & 1 << at != 0);
            set.for_each(|(_, (name, _))| write!(line, " {name}").unwrap());
            continue;
        }
        let (name, kind) = &run[0];
        let value = field_text(&mut reader, kind);
        if !matches!(value.as_str(), "" | "0" | "\"\"" | "{}") {
            write!(line, " {name}={value}").unwrap();
        }
    }
    assert!(reader.is_empty(), "{line} ends with its last field");
    line
}

fn field_text(reader: &mut Reader<'_>, kind: &str) -> String {
    let quoted = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).replace('\0', "\\0");
        if text.contains([' ', '\'']) || text.is_empty() { format!("\"{text}\"") } else { text }
    };
    match kind {
        "octet" => reader.u8().unwrap().to_string(),
        "short" => reader.u16().unwrap().to_string(),
        "long" => reader.u32().unwrap().to_string(),
        "shortstr" => {
            let length = reader.u8().unwrap().into();
            quoted(reader.bytes(length).unwrap())
        }
        "longstr" | "table" => {
            let length = reader.u32().unwrap() as usize;
            let bytes = reader.bytes(length).unwrap();
            if kind == "table" { entries_text(bytes) } else { quoted(bytes) }
        }
        _ => reader.u64().unwrap().to_string(),
    }
}

fn entries_text(bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        let key = field_text(&mut reader, "shortstr");
        let value = match reader.u8().unwrap() {
            b'S' => field_text(&mut reader, "longstr"),
            b'F' => field_text(&mut reader, "table"),
            b'I' => field_text(&mut reader, "long"),
            b't' => (reader.u8().unwrap() != 0).to_string(),
            other => panic!("no text for values of type {other}"),
        };
        entries.push(format!("{key}={value}"));
    }
    format!("{{{}}}", entries.join(","))
}
