//! A panic in any thread ends the process.

use std::{env, io, process::Command, thread};

use ferrymq_server::panics;

use crate::running::fails;

/// Set when this test runs as its own child.
const CHILD: &str = "FERRYMQ_TEST_PANICS";

#[test]
fn a_panic_in_any_thread_ends_the_process() {
    if env::var_os(CHILD).is_some() {
        tracing_subscriber::fmt().with_writer(io::stderr).init();
        panics::end_the_process();
        let panicking = thread::Builder::new().name("storage's own".to_owned()).spawn(|| panic!("on purpose")).unwrap();
        // Without the hook the process would continue, and end with success.
        let _ = panicking.join();
        return;
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "panics::a_panic_in_any_thread_ends_the_process", "--nocapture"]).env(CHILD, "1");
    let (code, log) = fails(&mut child);
    assert_eq!(code, Some(panics::EXIT_CODE), "{log}");
    assert!(log.contains("thread 'storage's own' panicked at"), "{log}");
    assert!(log.contains("on purpose"), "{log}");
}
