//! Selectors, from the text of a binding to the answer.

use ferrymq_model::{Table, Value};

use super::{Expression, LENGTH_BYTES_MAX, NESTING_MAX, Unreadable};

fn headers() -> Table {
    let decimal = Value::Decimal { scale: 2, digits: 250 };
    [
        ("colour", Value::Text("blue".to_owned())),
        ("place", Value::Text("Köln_1".to_owned())),
        ("weight", Value::Int(2501)),
        ("half", Value::Float(0.5)),
        ("price", decimal),
        ("huge", Value::Unsigned(u64::MAX)),
        ("yes", Value::Bool(true)),
        ("no", Value::Bool(false)),
        ("void", Value::Void),
        ("list", Value::List(Vec::new())),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Reads a selector, in which `$name` stands for the header of that name and `"text"` for a binary, and asks it.
#[track_caller]
fn check(selector: &str, expected: Option<bool>) {
    let mut term = String::new();
    for (at, piece) in selector.split('"').enumerate() {
        match at % 2 {
            0 => term += &piece.split('$').enumerate().map(|(at, piece)| with_name(at, piece)).collect::<String>(),
            _ => term += &format!("<<\"{piece}\">>"),
        }
    }
    let expression = Expression::from_erlang(&term).unwrap_or_else(|why| panic!("{term}: {why}"));
    let headers = headers();
    assert_eq!(expression.truth(&|name| headers.get(name)), expected, "{term}");
    assert_eq!(expression.selects(&|name| headers.get(name)), expected == Some(true), "{term}");
}

fn with_name(at: usize, piece: &str) -> String {
    let end = piece.find(|c: char| !c.is_alphanumeric()).unwrap_or(piece.len());
    let (name, rest) = piece.split_at(end);
    if at == 0 { piece.to_owned() } else { format!("{{ident,<<\"{name}\">>}}{rest}") }
}

#[test]
fn what_is_unknown_stays_so_unless_the_other_side_decides() {
    let words = [("true", Some(true)), ("false", Some(false)), ("$gone", None)];
    let and = [Some(true), Some(false), None, Some(false), Some(false), Some(false), None, Some(false), None];
    let or = [Some(true), Some(true), Some(true), Some(true), Some(false), None, Some(true), None, None];
    for (at, (left, value)) in words.iter().enumerate() {
        check(&format!("{{'not',{left}}}"), value.map(|truth| !truth));
        for (beside, (right, _)) in words.iter().enumerate() {
            check(&format!("{{'and',{left},{right}}}"), and[at * 3 + beside]);
            check(&format!("{{'or',{left},{right}}}"), or[at * 3 + beside]);
        }
    }
    // What is no condition is unknown as one.
    check("{'not',5}", None);
    check("{'or',$colour,true}", Some(true));
}

#[test]
fn comparisons() {
    check("{'=',$colour,\"blue\"}", Some(true));
    check("{'<>',$colour,\"blue\"}", Some(false));
    check("{'<',$colour,\"blue \"}", Some(true));
    check("{'=',$weight,2501.0}", Some(true));
    check("{'>=',$weight,2502}", Some(false));
    check("{'>',$weight,2500}", Some(true));
    check("{'<=',$half,0.5}", Some(true));
    check("{'=',$price,2.5}", Some(true));
    check("{'=',$yes,true}", Some(true));
    check("{'<>',$yes,$no}", Some(true));
    check("{'>',$yes,$no}", Some(false));
    // Missing or void is unknown; of other types is false, whatever is asked.
    for operator in ["=", "<>", "<", "<=", ">", ">="] {
        check(&format!("{{'{operator}',$gone,1}}"), None);
        check(&format!("{{'{operator}',$void,$list}}"), None);
        check(&format!("{{'{operator}',$weight,\"2501\"}}"), Some(false));
        check(&format!("{{'{operator}',$list,$list}}"), Some(false));
    }
}

#[test]
fn numbers_are_exact_as_long_as_they_can_be() {
    check("{'=',$huge,18446744073709551615}", Some(true));
    check("{'<',18446744073709551614,$huge}", Some(true));
    check("{'<',9007199254740993,9007199254740992.0}", Some(false));
    check("{'>',9007199254740993,9007199254740992.0}", Some(true));
    check("{'<',-1,-0.5}", Some(true));
    check("{'=',0,{'-',0.0}}", Some(true));
    check("{'=',16#Ff,255}", Some(true));
    check("{'=',1.5e3,1500}", Some(true));
    check("{'=',{'+',{'*',$weight,2},{'-',1}},5001}", Some(true));
    check("{'=',{'/',5,2},2.5}", Some(true));
    check("{'=',{'/',6,-2},-3}", Some(true));
    check("{'>',{'/',1,0},$huge}", Some(true));
    check("{'<>',{'/',0,0},1}", Some(false));
    check("{'=',{'+',$colour,1},1}", None);
    check("{'=',{'+',$gone,1},1}", None);
    let most = i128::MAX;
    check(&format!("{{'>',{{'*',{most},2}},{most}}}"), Some(true));
}

#[test]
fn ranges_lists_and_absence() {
    check("{'between',$weight,2501,2501}", Some(true));
    check("{'between',$weight,{'range',0,2500}}", Some(false));
    check("{'not_between',$weight,{range,0,2500}}", Some(true));
    // One bound can be enough to know.
    check("{'between',$weight,3000,$gone}", Some(false));
    check("{'between',$weight,2000,$gone}", None);
    check("{'in',$colour,[\"red\", \"blue\"]}", Some(true));
    check("{'not_in',$colour,[\"red\"]}", Some(true));
    check("{'in',$colour,[]}", Some(false));
    check("{'in',$weight,[1,2501.0]}", Some(true));
    check("{'not_in',$gone,[\"red\"]}", None);
    check("{'is_null',$gone}", Some(true));
    check("{'is_null',$void}", Some(true));
    check("{'not_null',$list}", Some(true));
    check("{'is_null',{'=',$gone,1}}", Some(true));
}

#[test]
fn likeness() {
    for (pattern, expected) in [
        ("blue", true),
        ("blu", false),
        ("bl%", true),
        ("%", true),
        ("%%e", true),
        ("%l%", true),
        ("b__e", true),
        ("b_e", false),
        ("_blue", false),
        ("%blue_", false),
        ("", false),
    ] {
        check(&format!("{{'like',$colour,\"{pattern}\",'no_escape'}}"), Some(expected));
        check(&format!("{{'not_like',$colour,\"{pattern}\",no_escape}}"), Some(!expected));
    }
    check("{'like',$place,\"K_ln!_%\",\"!\"}", Some(true));
    check("{'like',$colour,\"bl!_%\",\"!\"}", Some(false));
    check("{'like',\"a!\",\"_!\",\"!\"}", Some(true));
    check("{'like',\"\",\"%\",'no_escape'}", Some(true));
    check("{'like',$gone,\"%\",'no_escape'}", None);
    check("{'like',$weight,\"%\",'no_escape'}", Some(false));
}

#[test]
fn likeness_does_not_try_every_way() {
    let pattern = "%a".repeat(2000) + "b";
    let text = "a".repeat(4000);
    assert!(!super::Pattern::new(&pattern, None).matches(&text));
}

#[test]
fn what_can_be_read() {
    check(" { '=' ,\n$colour ,\t\"bl\\e\" } . ", Some(false));
    check("{'=',\"\\n\\s\",\"\n \"}.", Some(true));
    check("true", Some(true));
    check("'false'.", Some(false));
    let quotes = Expression::from_erlang("{'=',{ident,<<\"a\\\"\\\\\">>},1}.").unwrap();
    assert!(quotes.selects(&|name| (name == "a\"\\").then_some(&Value::Int(1))));
    check("{'=',<<>>,\"\"}.", Some(true));
    check("{'=',+5,- 5}", Some(false));
}

#[test]
fn what_is_no_selector() {
    let malformed =
        ["", ".", "{", "{'='", "{'=',1", "{'=',1,}", "{'=',1,2}}", "{'=',1,2}. x", "<<\"a", "<<\"a\">", "'a"];
    let numbers = ["-", "1.e5", "1.5e", "1#1", "37#1", "16#", "16#xyz", "9999999999999999999999999999999999999999"];
    let escapes = ["<<\"\\", "<<\"\\x41\">>", "\"text\"", "Variable", "é", "{é}", "[1|2]", "#{}"];
    for text in malformed.into_iter().chain(numbers).chain(escapes) {
        let read = Expression::from_erlang(text);
        assert!(matches!(read, Err(Unreadable::Malformed(at)) if at <= text.len()), "{text}: {read:?}");
    }
    let shapes =
        ["foo", "{}", "{1}", "{foo,1}", "{'=',1}", "{'=',1,2,3}", "{ident,foo}", "{ident,1}", "[]", "{'+',1,2,3,4}"];
    let operands =
        ["{'in',1,2}", "{'in',1,[[]]}", "{'like',1,2,no_escape}", "{'like',1,<<\"%\">>,<<\"ab\">>}", "{'between',1,2}"];
    for text in shapes.into_iter().chain(operands) {
        let read = Expression::from_erlang(text);
        assert!(matches!(read, Err(Unreadable::Meaningless(_))), "{text}: {read:?}");
    }
}

#[test]
fn hostile_nesting_is_refused() {
    let nested = |depth: usize| format!("{}true{}", "{'not',".repeat(depth), "}".repeat(depth));
    check(&nested(NESTING_MAX), Some(true));
    assert_eq!(Expression::from_erlang(&nested(NESTING_MAX + 1)), Err(Unreadable::TooDeep));
    for open in ["{", "[", "{'not',", "{'in',1,["] {
        let text = open.repeat(LENGTH_BYTES_MAX / open.len());
        assert_eq!(Expression::from_erlang(&text), Err(Unreadable::TooDeep), "{open}");
    }
    let long = format!("<<\"{}\">>", "x".repeat(LENGTH_BYTES_MAX));
    assert_eq!(Expression::from_erlang(&long), Err(Unreadable::TooLong));
}

/// Whatever is cut or changed, reading ends, and what could be read can be asked.
#[test]
fn any_text_is_read_or_refused() {
    let whole = "{'or',{'in',{ident,<<\"ö\\\"\">>},[16#f,-2.5e3]},{'not_like',<<\"x\">>,<<\"%_\">>,no_escape}}.";
    let headers = headers();
    for (at, _) in whole.char_indices() {
        for replacement in ["", "{", "}", "\"", "'", "\\", "<<", "9", "ß", "."] {
            let rest = whole[at..].chars().skip(1).collect::<String>();
            let text = format!("{}{replacement}{rest}", &whole[..at]);
            if let Ok(expression) = Expression::from_erlang(&text) {
                expression.selects(&|name| headers.get(name));
            }
            drop(Expression::from_erlang(&whole[..at]));
        }
    }
}
