//! A panic ends the process, whichever thread it comes from.

use std::{env, io, process::Command, thread};

use ferrymq_server::panics;

use crate::running::fails;

/// Set where this test is its own child.
const CHILD: &str = "FERRYMQ_TEST_PANICS";

#[test]
fn a_panic_in_any_thread_ends_the_process() {
    if env::var_os(CHILD).is_some() {
        tracing_subscriber::fmt().with_writer(io::stderr).init();
        panics::end_the_process();
        let panicking = thread::Builder::new().name("storage's own".to_owned()).spawn(|| panic!("on purpose")).unwrap();
        // Were it not for the hook, the process would go on, and end as if nothing had happened.
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
