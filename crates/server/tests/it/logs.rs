//! What the log tells an operator: which connections opened and ended, what went wrong, and what the server did.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

use ferrymq_conformance::{Script, Tcp, Whose, identify, play};

use crate::running::{Folder, Running, ferrymq};

fn start(data: &Folder, options: &[&str]) -> Running {
    Running::start_logged(data, ferrymq().args(["--listen", "amqp=127.0.0.1:0"]).args(options))
}

/// Runs a conversation.
fn converse(server: &Running, script: &str) {
    let script = Script::parse("log", script).unwrap();
    play(&script, &mut Tcp::new(server.address("amqp")), Whose::Ours).unwrap();
}

/// The only line that contains this.
fn line<'a>(log: &'a str, text: &str) -> &'a str {
    let mut lines = log.lines().filter(|line| line.contains(text));
    let line = lines.next().unwrap_or_else(|| panic!("no line with `{text}` in {log}"));
    assert_eq!(lines.next(), None, "more than one line with `{text}` in {log}");
    line
}

#[test]
fn a_life_leaves_its_lines() {
    let data = Folder::created();
    let server = start(&data, &[]);
    converse(
        &server,
        "C: connect\nC: confirm.select\nS: confirm.select-ok\nC: queue.declare queue=keep durable=true\n\
         S: queue.declare-ok\nC: basic.publish routing-key=keep body=\"x\" delivery-mode=2\nS: confirmed 1-1\n",
    );
    let log = server.terminate_logged();
    let data_dir = data.0.join("data").display().to_string();
    assert!(line(&log, " starts, with data directory ").contains(&data_dir));
    line(&log, "created a new data directory");
    assert!(line(&log, "ready after").contains("amqp 127.0.0.1:"));
    assert!(line(&log, "closed, because listen is given").contains("http (--listen http=127.0.0.1:15672 opens it)"));
    line(&log, "stopped: everything is on disk");
    let server = start(&data, &[]);
    // The runner has deleted what its script declared.
    line(&server.log()[log.len()..], "recovered 0 queues with 0 messages from");
}

#[test]
fn logins_ends_and_channel_errors_have_a_line_each() {
    let data = Folder::created();
    let server = start(&data, &[]);
    converse(
        &server,
        "C: connect\nC: queue.declare queue=nope passive=true\nS: channel.close reply-code=404\nC: channel.close-ok\n",
    );
    let log = server.logged("connection ended: closed by the client: 200");
    // The runner has two more connections, to clean up.
    let opened = log.lines().filter(|line| line.contains("connection opened")).count();
    assert_eq!(opened, log.lines().filter(|line| line.contains("connection ended: closed by")).count() + open(&log));
    let error = line(&log, "channel error: 404 NOT_FOUND - no queue 'nope' in vhost '/'");
    for part in ["peer=\"127.0.0.1:", "user=\"guest\"", "vhost=\"/\"", "client=\"conformance\"", "channel=1"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

/// How many connections are open, as far as the log says.
fn open(log: &str) -> usize {
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    count("connection opened") - count("connection ended:")
}

#[test]
fn a_consumer_timeout_has_a_line() {
    let data = Folder::created();
    let server = start(&data, &["--limits-consumer-timeout-ms", "200"]);
    converse(
        &server,
        "C: connect\nC: queue.declare queue=q\nS: queue.declare-ok\nC: basic.consume queue=q consumer-tag=c\n\
         S: basic.consume-ok\nC: basic.publish routing-key=q body=\"held\"\nS: basic.deliver\n\
         S: channel.close reply-code=406\nC: channel.close-ok\n",
    );
    let log = server.terminate_logged();
    line(&log, "channel error: 406 PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out");
}

#[test]
fn a_shutdown_is_one_warning() {
    let data = Folder::created();
    let server = start(&data, &[]);
    let sockets: Vec<std::net::TcpStream> =
        (0..3).map(|_| std::net::TcpStream::connect(server.address("amqp")).unwrap()).collect();
    let waiting = std::thread::spawn({
        let address = server.address("amqp").to_owned();
        let script = "C: connect\nS1.0: connection.close reply-code=320\nC1.0: connection.close-ok\n";
        move || play(&Script::parse("log", script).unwrap(), &mut Tcp::new(address), Whose::Ours)
    });
    server.logged("connection opened");
    let log = server.terminate_logged();
    drop(sockets);
    // The runner cannot clean up any more.
    let _ = waiting.join().unwrap();
    assert!(line(&log, "WARN").contains("SIGTERM: the server stops; "), "{log}");
}

#[test]
fn names_cannot_forge_a_line_and_refusals_are_counted() {
    let data = Folder::created();
    let server = start(&data, &[]);
    let forged = "2026-01-01T00:00:00.000000Z ERROR forged";
    let script = format!(
        "C: connect user=\"x\\n{forged}\" password=x\nS1.0: connection.close reply-code=403\nC1.0: connection.close-ok\n"
    );
    // The runner reports the refusal as a failed `connect`.
    let played = play(&Script::parse("log", &script).unwrap(), &mut Tcp::new(server.address("amqp")), Whose::Ours);
    assert!(played.unwrap_err().contains("reply-code=403"));
    // The log takes 100 lines at once and then 5 a second. Twice as many are too many, even on a slow machine.
    let (began, mut strangers) = (Instant::now(), 0.0);
    while strangers < 2.0 * (100.0 + 5.0 * began.elapsed().as_secs_f64()) {
        let mut stranger = TcpStream::connect(server.address("amqp")).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // The server answers with its own header and closes the socket. If it has not read everything, the client may
        // see a reset.
        let _ = stranger.read_to_end(&mut Vec::new());
        strangers += 1.0;
    }
    assert!(identify(&mut Tcp::new(server.address("amqp"))).is_ok());
    let log = server.terminate_logged();
    assert!(line(&log, "login refused").contains("forged"), "{log}");
    assert!(!log.lines().any(|line| line.starts_with(forged)), "{log}");
    let listed = log.lines().filter(|line| line.contains("connection ended before it was open")).count();
    let more = "more refused logins and connections that ended before a login are not listed here";
    assert!(listed >= 99 && log.contains(more), "{listed} lines for {strangers} strangers: {log}");
}

#[test]
fn signals_of_terminals_and_log_rotation_do_not_end_it() {
    let data = Folder::created();
    let file = data.0.join("ferrymq.toml");
    std::fs::write(&file, "log_level = \"info\"\n").unwrap();
    let server = start(&data, &["--config", file.to_str().unwrap()]);
    server.signal("USR1");
    server.signal("USR2");
    std::fs::write(&file, "log_level = \"error\"\nlimits.channels_max = 7\n").unwrap();
    server.signal("HUP");
    // From the next reload on there are no more lines.
    server.logged("SIGHUP: limits.channels_max has changed, and takes effect at the next start");
    assert!(server.terminate().success());
}
