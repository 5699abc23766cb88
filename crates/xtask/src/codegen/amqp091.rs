//! From the table of AMQP 0-9-1 to the methods and reply codes of its codec.

use std::fmt::Write;

use toml::{Table, Value};

/// The table, in the order of the generated code.
pub struct Spec {
    methods: Vec<Method>,
    reply_codes: Vec<ReplyCode>,
}

struct Method {
    class: i64,
    id: i64,
    /// Its name in the definition: `queue.declare-ok`.
    name: String,
    content: bool,
    fields: Vec<Field>,
}

struct Field {
    /// Its name in Rust: `no_wait`.
    name: String,
    kind: String,
    reserved: bool,
}

struct ReplyCode {
    name: String,
    code: i64,
    closes_connection: bool,
}

impl Spec {
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|why: toml::de::Error| why.to_string())?;
        let mut methods = Vec::new();
        for (name, class) in sub_table(&table, "class")? {
            let id = integer(class, "id")?;
            let listed = class.get("methods").and_then(Value::as_array).ok_or(format!("{name}: no methods"))?;
            for method in listed {
                methods.push(Method::parse(name, id, method)?);
            }
        }
        methods.sort_by_key(|method| (method.class, method.id));
        let mut reply_codes = Vec::new();
        for (name, entry) in sub_table(&table, "reply-code")? {
            let closes_connection = string(entry, "closes")? == "connection";
            reply_codes.push(ReplyCode { name: name.clone(), code: integer(entry, "code")?, closes_connection });
        }
        reply_codes.sort_by_key(|reply| reply.code);
        Ok(Self { methods, reply_codes })
    }

    /// The text of `methods.rs`.
    pub fn methods(&self) -> String {
        let mut out = String::from(METHODS_HEAD);
        for method in &self.methods {
            method.definition(&mut out);
            method.reading(&mut out);
            method.writing(&mut out);
        }
        self.method_enum(&mut out);
        out
    }

    fn method_enum(&self, out: &mut String) {
        let (mut variants, mut read, mut write, mut ids, mut names) = Default::default();
        for method in &self.methods {
            let (rust, class, id, name) = (method.rust_name(), method.class, method.id, &method.name);
            push(&mut variants, format_args!("/// `{name}`\n{rust}({rust}{}),\n", method.lifetime()));
            push(&mut read, format_args!("({class}, {id}) => Self::{rust}({rust}::read(&mut reader)?),\n"));
            push(&mut write, format_args!("Self::{rust}(method) => method.write(out),\n"));
            push(&mut ids, format_args!("Self::{rust}(_) => ({class}, {id}),\n"));
            push(&mut names, format_args!("Self::{rust}(_) => \"{name}\",\n"));
        }
        push(
            out,
            format_args!(
                "/// A method, borrowed from its frame's payload.
                #[derive(Clone, Copy, Debug, PartialEq)]
                pub enum Method<'a> {{ {variants} }}

                impl<'a> Method<'a> {{
                    /// Reads the payload of a method frame.
                    ///
                    /// # Errors
                    /// If there is no such method, or its fields do not fill the payload exactly.
                    pub fn read(payload: &'a [u8]) -> Result<Self, Malformed> {{
                        let mut reader = Reader::new(payload);
                        let (class, method) = (reader.u16()?, reader.u16()?);
                        let read = match (class, method) {{
                            {read}
                            _ => return Err(Malformed::UnknownMethod {{ class, method }}),
                        }};
                        field::end(&reader)?;
                        Ok(read)
                    }}

                    /// Appends the payload of a method frame.
                    ///
                    /// # Panics
                    /// If a short string has more than 255 bytes.
                    pub fn write(&self, out: &mut impl Put) {{ match self {{ {write} }} }}

                    /// The numbers of class and method, as a close has them.
                    #[must_use]
                    pub const fn id(&self) -> (u16, u16) {{ match self {{ {ids} }} }}

                    /// The name `class.method`, as in the definition.
                    #[must_use]
                    pub const fn name(&self) -> &'static str {{ match self {{ {names} }} }}
                }}
                "
            ),
        );
    }

    /// The text of `reply_code.rs`.
    pub fn reply_codes(&self) -> String {
        let (mut variants, mut names, mut hard): (_, _, Vec<_>) = Default::default();
        for reply in &self.reply_codes {
            let rust = camel(&reply.name.to_lowercase());
            push(&mut variants, format_args!("/// `{}`\n{rust} = {},\n", reply.name, reply.code));
            push(&mut names, format_args!("Self::{rust} => \"{}\",\n", reply.name));
            if reply.closes_connection {
                hard.push(format!("Self::{rust}"));
            }
        }
        let hard = hard.join(" | ");
        format!(
            "{REPLY_CODES_HEAD}
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            #[repr(u16)]
            pub enum ReplyCode {{ {variants} }}

            impl ReplyCode {{
                /// The number in the protocol.
                #[must_use]
                pub const fn number(self) -> u16 {{ self as u16 }}

                /// The name with which RabbitMQ begins the reply text.
                #[must_use]
                pub const fn name(self) -> &'static str {{ match self {{ {names} }} }}

                /// Whether it closes the connection. If not, it closes the channel.
                #[must_use]
                pub const fn is_hard(self) -> bool {{ matches!(self, {hard}) }}
            }}"
        )
    }
}

impl Method {
    fn parse(class_name: &str, class: i64, method: &Value) -> Result<Self, String> {
        Ok(Self {
            class,
            id: integer(method, "id")?,
            name: format!("{class_name}.{}", string(method, "name")?),
            content: method.get("content").is_some(),
            fields: string(method, "fields")?.split_whitespace().map(Field::parse).collect::<Result<_, _>>()?,
        })
    }

    fn rust_name(&self) -> String {
        camel(&self.name)
    }

    fn kept(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.reserved)
    }

    fn lifetime(&self) -> &'static str {
        if self.kept().any(Field::borrows) { "<'a>" } else { "" }
    }

    fn definition(&self, out: &mut String) {
        let fields: String = self
            .kept()
            .map(|field| {
                format!(
                    "/// `{}`\npub {}: {},\n",
                    field.name.replace('_', "-"),
                    field.name,
                    field.rust_type(self.content)
                )
            })
            .collect();
        let body = if fields.is_empty() { ";".to_owned() } else { format!(" {{ {fields} }}") };
        push(
            out,
            format_args!(
                "/// `{}`\n#[derive(Clone, Copy, Debug, PartialEq)]\npub struct {}{}{body}\n\n",
                self.name,
                self.rust_name(),
                self.lifetime()
            ),
        );
    }

    fn reading(&self, out: &mut String) {
        let mut steps = String::new();
        for run in self.runs() {
            match run {
                [bit, ..] if bit.kind == "bit" && run.iter().all(|bit| bit.reserved) => steps.push_str("reader.u8()?;"),
                [bit, ..] if bit.kind == "bit" => {
                    steps.push_str("let bits = reader.u8()?;");
                    for (place, bit) in run.iter().enumerate().filter(|(_, bit)| !bit.reserved) {
                        push(&mut steps, format_args!("let {} = bits & {} != 0;", bit.name, 1 << place));
                    }
                }
                [field] if field.reserved => push(&mut steps, format_args!("{}?;", field.read(true))),
                [field] => push(&mut steps, format_args!("let {} = {}?;", field.name, field.read(self.content))),
                _ => unreachable!("only bits come in runs"),
            }
        }
        let names: Vec<&str> = self.kept().map(|field| field.name.as_str()).collect();
        let made = if names.is_empty() { "Self".to_owned() } else { format!("Self {{ {} }}", names.join(", ")) };
        let (rust, lifetime) = (self.rust_name(), self.lifetime());
        let (parameter, argument) = match (self.fields.is_empty(), lifetime.is_empty()) {
            (true, _) => ("_", "&mut Reader<'_>"),
            (false, true) => ("reader", "&mut Reader<'_>"),
            (false, false) => ("reader", "&mut Reader<'a>"),
        };
        push(
            out,
            format_args!(
                "impl{lifetime} {rust}{lifetime} {{
                    #[inline]
                    pub(super) fn read({parameter}: {argument}) -> Result<Self, Malformed> {{ {steps} Ok({made}) }}
                }}\n\n"
            ),
        );
    }

    fn writing(&self, out: &mut String) {
        let (mut steps, mut fixed, mut lengths) = (String::new(), 4, String::new());
        for run in self.runs() {
            fixed += run[0].fixed_bytes();
            if !run[0].reserved {
                lengths += &run[0].further_bytes();
            }
            if run[0].kind == "bit" {
                let bits = run.iter().enumerate().filter(|(_, bit)| !bit.reserved);
                let bits: Vec<_> = bits.map(|(place, bit)| format!("u8::from(self.{}) << {place}", bit.name)).collect();
                let octet = if bits.is_empty() { "0".to_owned() } else { bits.join(" | ").replace(" << 0", "") };
                push(&mut steps, format_args!("out.put_u8({octet});"));
            } else {
                push(&mut steps, format_args!("{};", run[0].write(self.content)));
            }
        }
        let length = format!("{fixed}{lengths}");
        let octets = [self.class as u16, self.id as u16].map(u16::to_be_bytes).concat();
        let anonymous = if self.lifetime().is_empty() { "" } else { "<'_>" };
        push(
            out,
            format_args!(
                "impl WireMethod for {rust}{anonymous} {{
                    const ID: (u16, u16) = ({class}, {id});

                    #[inline]
                    fn write(&self, out: &mut impl Put) {{
                        out.put_array({octets:?});
                        {steps}
                    }}

                    #[inline]
                    fn len_bytes(&self) -> usize {{
                        {length}
                    }}
                }}\n\n",
                rust = self.rust_name(),
                class = self.class,
                id = self.id,
            ),
        );
    }

    /// The fields in runs. Neighbouring bits are one run of at most eight, which share an octet; each other field is a
    /// run of its own.
    fn runs(&self) -> impl Iterator<Item = &[Field]> {
        self.fields.chunk_by(|a, b| a.kind == "bit" && b.kind == "bit")
    }
}

impl Field {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, kind) = text.split_once(':').ok_or(format!("`{text}` is not name:type"))?;
        let (reserved, name) = name.strip_prefix('~').map_or((false, name), |name| (true, name));
        // `type` is a keyword of Rust.
        let name = if name == "type" { "kind".to_owned() } else { name.replace('-', "_") };
        let known = ["octet", "short", "long", "longlong", "timestamp", "shortstr", "longstr", "table", "bit"];
        if known.contains(&kind) {
            Ok(Self { name, kind: kind.to_owned(), reserved })
        } else {
            Err(format!("`{text}`: there is no such type"))
        }
    }

    fn borrows(&self) -> bool {
        matches!(self.kind.as_str(), "shortstr" | "longstr" | "table")
    }

    /// As in RabbitMQ, the short strings of methods with content are not checked.
    fn rust_type(&self, content: bool) -> &'static str {
        match self.kind.as_str() {
            "octet" => "u8",
            "short" => "u16",
            "long" => "u32",
            "shortstr" if !content => "&'a str",
            "shortstr" | "longstr" => "&'a [u8]",
            "table" => "RawTable<'a>",
            "bit" => "bool",
            _ => "u64",
        }
    }

    fn read(&self, content: bool) -> &'static str {
        match self.kind.as_str() {
            "octet" => "reader.u8()",
            "short" => "reader.u16()",
            "long" => "reader.u32()",
            "shortstr" if !content => "field::short_text(reader)",
            "shortstr" => "field::short_bytes(reader)",
            "longstr" => "field::long_bytes(reader)",
            "table" => "field::table(reader)",
            _ => "reader.u64()",
        }
    }

    /// The minimum number of its bytes. A run of bits has one byte.
    fn fixed_bytes(&self) -> usize {
        match self.kind.as_str() {
            "octet" | "shortstr" | "bit" => 1,
            "short" => 2,
            "long" | "longstr" | "table" => 4,
            _ => 8,
        }
    }

    /// The number of bytes in addition to the minimum.
    fn further_bytes(&self) -> String {
        match self.kind.as_str() {
            "shortstr" | "longstr" => format!(" + self.{}.len()", self.name),
            "table" => format!(" + self.{}.bytes().len()", self.name),
            _ => String::new(),
        }
    }

    fn write(&self, content: bool) -> String {
        let reserved = match self.kind.as_str() {
            "shortstr" | "longstr" => "b\"\"".to_owned(),
            _ => "0".to_owned(),
        };
        let value = if self.reserved { reserved } else { format!("self.{}", self.name) };
        match self.kind.as_str() {
            "octet" => format!("out.put_u8({value})"),
            "short" => format!("out.put_u16({value})"),
            "long" => format!("out.put_u32({value})"),
            "shortstr" if !content && !self.reserved => format!("field::put_short(out, {value}.as_bytes())"),
            "shortstr" => format!("field::put_short(out, {value})"),
            "longstr" => format!("field::put_long(out, {value})"),
            "table" => format!("field::put_long(out, {value}.bytes())"),
            _ => format!("out.put_u64({value})"),
        }
    }
}

const METHODS_HEAD: &str =
    "//! All methods of AMQP 0-9-1 and of RabbitMQ's extensions, and the code that reads and writes their fields.
//!
//! @generated by `cargo x codegen` from spec/amqp091.toml; edit that file instead.

use ferrymq_wire::{Put, Reader};

use super::{Malformed, field, table::RawTable};

/// A method that can be written into a frame.
pub trait WireMethod {
    /// The numbers of class and method.
    const ID: (u16, u16);

    /// Appends the payload of a method frame.
    ///
    /// # Panics
    /// If a short string has more than 255 bytes.
    fn write(&self, out: &mut impl Put);

    /// How many bytes [`WireMethod::write`] appends.
    fn len_bytes(&self) -> usize;
}

";

const REPLY_CODES_HEAD: &str =
    "//! The reply codes of AMQP 0-9-1: why a channel or a connection was closed, or why a message was returned.
//!
//! @generated by `cargo x codegen` from spec/amqp091.toml; edit that file instead.

/// The reason for a close or a return.";

/// `queue.declare-ok` and `not_found` become `QueueDeclareOk` and `NotFound`.
fn camel(name: &str) -> String {
    let words = name.split(['.', '-', '_']);
    words.flat_map(|word| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1))).collect()
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}

fn sub_table<'a>(table: &'a Table, key: &str) -> Result<&'a Table, String> {
    table.get(key).and_then(Value::as_table).ok_or(format!("no table `{key}`"))
}

fn integer(value: &Value, key: &str) -> Result<i64, String> {
    value.get(key).and_then(Value::as_integer).ok_or(format!("no number `{key}`"))
}

fn string<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    value.get(key).and_then(Value::as_str).ok_or(format!("no text `{key}`"))
}
