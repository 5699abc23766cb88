//! Every script of AMQP 0-9-1 in memory.

use std::{path::Path, sync::Arc};

use ferrymq_amqp091::{Connection, Greeting, PropertyList};
use ferrymq_conformance::{Script, Suite, Whose, play};
use ferrymq_model::ServerProperties;

use crate::memory::{DEFINITIONS, Memory};

/// A node to which clients speak AMQP 0-9-1.
fn memory() -> Memory {
    Memory::new(&[&PropertyList], DEFINITIONS, |limits| {
        let greeting = Arc::new(Greeting::new(&ServerProperties::default(), limits.clone()));
        Box::new(move || Box::new(Connection::new(greeting.clone())))
    })
}

#[test]
fn every_script_in_memory() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/amqp");
    let suite = Suite::read(&folder).unwrap();
    let failures: Vec<String> = suite
        .scripts
        .iter()
        .filter_map(|script| {
            // A panic in one conversation fails that one only; the others still run.
            let played = std::panic::catch_unwind(|| suite.check(script, &mut memory(), Whose::Ours));
            let failure = played.unwrap_or_else(|_| Err("panicked".to_owned())).err()?;
            Some(format!("{}: {failure}", script.name))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), suite.scripts.len(), failures.join("\n"));
}

/// Another connection's request closes a channel. The client's answer may be read before the channel's own connection has
/// looked at what the other one has caused.
#[test]
fn the_answer_to_a_close_is_understood_however_soon_it_comes() {
    let script = "
C: connect
C2: connect frame-max=4096
C: queue.declare queue=soon
S: queue.declare-ok
C2: basic.consume queue=soon consumer-tag=c
S2: basic.consume-ok
C: basic.publish routing-key=soon headers={own=\"x\"*5000} body=\"a\"
S2: channel.close reply-code=311
C2: channel.close-ok
C2: channel.open
S2: channel.open-ok
";
    let script = Script::parse("soon", script).unwrap();
    let mut memory = memory();
    memory.answers_first = true;
    play(&script, &mut memory, Whose::Ours).unwrap();
}

/// The end of a connection comes in the same read as a message whose body must be in a file first.
#[test]
fn a_close_behind_a_long_body_is_answered() {
    const BODY_BYTES: usize = 2_000_000;
    let frame = |kind: u8, channel: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, channel][..], &length, payload, &[206]].concat()
    };
    let publish = [&[0, 60, 0, 40, 0, 0, 0, 4][..], b"long", &[0]].concat();
    let header = [&[0, 60, 0, 0][..], &(BODY_BYTES as u64).to_be_bytes(), &[0x10, 0, 2]].concat();
    let body: Vec<Vec<u8>> = vec![b'x'; BODY_BYTES].chunks(131_000).map(|part| frame(3, 1, part)).collect();
    let close = frame(1, 0, &[0, 10, 0, 50, 0, 200, 0, 0, 0, 0, 0]);
    let input = [frame(1, 1, &publish), frame(2, 1, &header), body.concat(), close].concat();
    let input = input.iter().map(|byte| format!(" {byte:02x}")).collect::<String>();
    let script = format!(
        "C: connect\nC: queue.declare queue=long durable=true exclusive=true\nS: queue.declare-ok\n\
         C: bytes{input}\nS1.0: connection.close-ok\n"
    );
    play(&Script::parse("long", &script).unwrap(), &mut memory(), Whose::Ours).unwrap();
}
