//! The tables of `spec/amqp091.toml`: the methods and their fields.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The parts of the protocol that this crate needs.
#[derive(Debug)]
pub struct Spec {
    methods: Vec<Method>,
    by_name: HashMap<String, usize>,
    by_id: HashMap<(u16, u16), usize>,
    /// The properties of class basic, in the order of their flags.
    pub properties: Vec<Field>,
}

#[derive(Debug)]
pub struct Method {
    /// The name with the class: `queue.declare-ok`.
    pub name: String,
    pub class_id: u16,
    pub id: u16,
    pub has_content: bool,
    pub fields: Vec<Field>,
}

#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub kind: FieldKind,
    /// Whether the field is reserved: it is written as zero or empty unless a script names it, and not shown in a
    /// recording.
    pub reserved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    Bit,
    Octet,
    Short,
    Long,
    LongLong,
    ShortText,
    LongText,
    Table,
}

impl Spec {
    /// The published protocol with RabbitMQ's extensions.
    pub fn amqp091() -> &'static Self {
        static SPEC: LazyLock<Spec> = LazyLock::new(|| Spec::parse(include_str!("../../../spec/amqp091.toml")));
        &SPEC
    }

    pub fn method(&self, name: &str) -> Option<&Method> {
        self.by_name.get(name).map(|index| &self.methods[*index])
    }

    pub fn method_by_id(&self, class_id: u16, id: u16) -> Option<&Method> {
        self.by_id.get(&(class_id, id)).map(|index| &self.methods[*index])
    }

    fn parse(text: &str) -> Self {
        let table: toml::Table = text.parse().expect("spec/amqp091.toml is TOML");
        let classes = table["class"].as_table().expect("classes are a table");
        let methods: Vec<Method> = classes.iter().flat_map(|(class, body)| methods_of(class, body)).collect();
        Self {
            by_name: methods.iter().enumerate().map(|(index, method)| (method.name.clone(), index)).collect(),
            by_id: methods.iter().enumerate().map(|(index, method)| ((method.class_id, method.id), index)).collect(),
            methods,
            properties: fields_of(&table["properties"]),
        }
    }
}

impl Method {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

fn methods_of<'a>(class: &'a str, body: &'a toml::Value) -> impl Iterator<Item = Method> + 'a {
    let class_id = id_of(body);
    let methods = body["methods"].as_array().expect("methods are a list");
    methods.iter().map(move |method| Method {
        name: format!("{class}.{}", method["name"].as_str().expect("a method has a name")),
        class_id,
        id: id_of(method),
        has_content: method.get("content").and_then(toml::Value::as_bool).unwrap_or(false),
        fields: fields_of(method),
    })
}

fn id_of(item: &toml::Value) -> u16 {
    item["id"].as_integer().and_then(|id| id.try_into().ok()).expect("an id has 16 bits")
}

fn fields_of(item: &toml::Value) -> Vec<Field> {
    let text = item["fields"].as_str().expect("fields are text");
    let field = |word: &str| {
        let (name, kind) = word.split_once(':').expect("a field is name:type");
        Field { name: name.trim_start_matches('~').to_owned(), kind: kind_of(kind), reserved: name.starts_with('~') }
    };
    text.split_whitespace().map(field).collect()
}

fn kind_of(word: &str) -> FieldKind {
    match word {
        "bit" => FieldKind::Bit,
        "octet" => FieldKind::Octet,
        "short" => FieldKind::Short,
        "long" => FieldKind::Long,
        "longlong" | "timestamp" => FieldKind::LongLong,
        "shortstr" => FieldKind::ShortText,
        "longstr" => FieldKind::LongText,
        "table" => FieldKind::Table,
        other => panic!("spec/amqp091.toml: no type `{other}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_name_and_by_id() {
        let spec = Spec::amqp091();
        let declare = spec.method("queue.declare").unwrap();
        assert_eq!((declare.class_id, declare.id), (50, 10));
        assert!(declare.field("ticket").unwrap().reserved);
        assert_eq!(spec.method_by_id(40, 51).unwrap().name, "exchange.unbind-ok");
        assert!(spec.method("basic.publish").unwrap().has_content);
        assert_eq!(spec.properties.len(), 14);
    }
}
