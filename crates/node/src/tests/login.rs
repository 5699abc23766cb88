//! Checks of passwords: equal ones are shared, and their number is bounded.

use std::sync::{Arc, atomic::Ordering};

use ferrymq_model::{Command, Event, Login, Mechanism, Name, Refusal};
use parking_lot::Mutex;

use crate::{
    Client, Node,
    tests::rig::{FakeHost, Folder, Gate, Moving, Nobody, open},
};

/// Keeps computations until the test runs them.
#[derive(Default)]
struct Waiting(Mutex<Vec<Box<dyn FnOnce() + Send>>>);

impl FakeHost for Waiting {
    fn compute(&self, work: Box<dyn FnOnce() + Send>) {
        self.0.lock().push(work);
    }
}

fn connect(node: &Arc<Node>, password: &str) -> (Client, Vec<Event>) {
    let mut client = node.connect(Arc::new(Nobody), "test".to_owned(), true).unwrap();
    let login = Login::Password { user: Name::from("guest"), password: password.as_bytes().to_vec() };
    let mut events = Vec::new();
    client.command(b"", Command::Login(login), &mut events);
    (client, events)
}

/// How many checks begin when many connections log in at once with the same password. All of them succeed.
fn checks_of_many(sabotage: impl FnOnce(&Node)) -> usize {
    let (folder, host) = (Folder::new(), Arc::new(Waiting::default()));
    let node = open(&folder, Arc::<Gate>::default(), host.clone());
    sabotage(&node);
    let mut clients: Vec<Client> = (0..20)
        .map(|_| {
            let (client, events) = connect(&node, "guest");
            assert!(events.is_empty() && client.is_paused(), "nothing is read from it meanwhile: {events:?}");
            client
        })
        .collect();
    let checks = std::mem::take(&mut *host.0.lock());
    let count = checks.len();
    checks.into_iter().for_each(|check| check());
    for client in &mut clients {
        let mut events = Vec::new();
        client.take_events(&mut events);
        assert!(matches!(events[..], [Event::LoggedIn]) && !client.is_paused(), "{events:?}");
    }
    let (_, events) = connect(&node, "guest");
    assert!(matches!(events[..], [Event::LoggedIn]), "what was right is not checked again: {events:?}");
    drop(clients);
    node.stop().unwrap();
    count
}

#[test]
fn those_who_log_in_alike_share_one_check() {
    assert_eq!(checks_of_many(|_| {}), 1);
}

#[test]
fn checks_that_are_not_shared_are_noticed() {
    assert!(checks_of_many(|node| node.checks_each_login.store(true, Ordering::Relaxed)) > 1);
}

#[test]
fn so_many_checks_wait_and_no_more_and_none_for_those_who_have_gone() {
    let (folder, host) = (Folder::new(), Arc::new(Waiting::default()));
    let node = open(&folder, Arc::<Gate>::default(), host.clone());
    let clients: Vec<(Client, Vec<Event>)> =
        (0..520).map(|number| connect(&node, &format!("wrong {number}"))).collect();
    let refused = |events: &Vec<Event>| matches!(events[..], [Event::Refused { .. }]);
    assert_eq!(clients.iter().filter(|(_, events)| refused(events)).count(), 8);
    let checks = std::mem::take(&mut *host.0.lock());
    assert_eq!(checks.len(), 512);
    drop(clients);
    // If each of these were made, this would take a processor ten seconds.
    checks.into_iter().for_each(|check| check());
    let (mut client, _) = connect(&node, "guest");
    let check = host.0.lock().pop().unwrap();
    check();
    let mut events = Vec::new();
    client.take_events(&mut events);
    assert!(matches!(events[..], [Event::LoggedIn]), "there is room again: {events:?}");
    drop(client);
    node.stop().unwrap();
}

/// Whether a login from another machine was answered.
fn is_answered(client: &mut Client) -> bool {
    let mut events = Vec::new();
    client.take_events(&mut events);
    !events.is_empty()
}

#[test]
fn failures_from_another_machine_are_slowed_and_those_from_here_are_not() {
    let folder = Folder::new();
    let host = Arc::new(Moving::default());
    let node = open(&folder, Arc::<Gate>::default(), host.clone());
    let attempt = |address: &str, loopback| {
        let mut client = node.connect(Arc::new(Nobody), address.to_owned(), loopback).unwrap();
        let login = Login::Password { user: Name::from("nobody"), password: b"guess".to_vec() };
        let mut events = Vec::new();
        client.command(b"", Command::Login(login), &mut events);
        let answered = !events.is_empty() || is_answered(&mut client);
        (client, answered)
    };
    for _ in 0..10 {
        assert!(attempt("127.0.0.1:1", true).1);
    }
    for _ in 0..5 {
        assert!(attempt("10.0.0.1:1", false).1);
    }
    let (mut client, answered) = attempt("10.0.0.1:2", false);
    assert!(!answered, "the sixth waits");
    assert!(attempt("10.0.0.2:1", false).1, "others do not");
    host.0.advance_to(99);
    node.on_timer();
    assert!(!is_answered(&mut client));
    host.0.advance_to(100);
    node.on_timer();
    assert!(is_answered(&mut client));
    drop(client);
    node.stop().unwrap();
}

/// Sends one step of a login and returns the events that it causes.
fn step(client: &mut Client, login: Login) -> Vec<Event> {
    let mut events = Vec::new();
    client.command(b"", Command::Login(login), &mut events);
    events
}

/// Begins a login in two steps, and is asked for the password.
fn asked(node: &Arc<Node>, address: &str, loopback: bool) -> Client {
    let mut client = node.connect(Arc::new(Nobody), address.to_owned(), loopback).unwrap();
    let begin = Login::Begin { mechanism: Mechanism::RabbitCrDemo, response: b"guest".to_vec() };
    let events = step(&mut client, begin);
    assert!(matches!(&events[..], [Event::Challenge(text)] if text == b"Please tell me your password"), "{events:?}");
    assert!(!client.is_logged_in());
    client
}

#[test]
fn a_login_in_two_steps_is_checked_after_the_second() {
    let folder = Folder::new();
    let node = open(&folder, Arc::<Gate>::default(), Arc::new(Moving::default()));
    let answer = |password: &[u8]| {
        let mut client = asked(&node, "here", true);
        let mut events = step(&mut client, Login::Respond([b"My password is ", password].concat()));
        client.take_events(&mut events);
        events
    };
    assert!(matches!(answer(b"guest")[..], [Event::LoggedIn]));
    for wrong in [&b""[..], b"wrong", &[b'x'; 64 << 10]] {
        assert!(matches!(answer(wrong)[..], [Event::Refused { refusal: Refusal::LoginFailed(_), .. }]));
    }
    node.stop().unwrap();
}

/// A response that nobody has asked for, one of another form, and one after the end of the exchange.
#[test]
fn a_response_that_is_not_valid_is_refused() {
    let folder = Folder::new();
    let node = open(&folder, Arc::<Gate>::default(), Arc::new(Moving::default()));
    let respond = |client: &mut Client, response: &[u8]| {
        let events = step(client, Login::Respond(response.to_vec()));
        assert!(matches!(events[..], [Event::Refused { refusal: Refusal::LoginMalformed(_), .. }]), "{events:?}");
    };
    let mut unasked = node.connect(Arc::new(Nobody), "here".to_owned(), true).unwrap();
    respond(&mut unasked, b"My password is guest");
    for response in [&b""[..], b"guest", &[b'x'; 64 << 10]] {
        let mut client = asked(&node, "here", true);
        respond(&mut client, response);
        respond(&mut client, b"My password is guest");
        assert!(!client.is_logged_in());
    }
    drop(unasked);
    node.stop().unwrap();
}

#[test]
fn failed_steps_from_another_machine_slow_the_next_login() {
    let folder = Folder::new();
    let host = Arc::new(Moving::default());
    let node = open(&folder, Arc::<Gate>::default(), host.clone());
    for number in 0..5 {
        let mut client = asked(&node, &format!("10.0.0.1:{number}"), false);
        step(&mut client, Login::Respond(b"neither".to_vec()));
    }
    let mut client = asked(&node, "10.0.0.1:9", false);
    let events = step(&mut client, Login::Respond(b"My password is wrong".to_vec()));
    assert!(events.is_empty() && !is_answered(&mut client), "the sixth waits");
    host.0.advance_to(100);
    node.on_timer();
    assert!(is_answered(&mut client));
    drop(client);
    node.stop().unwrap();
}
