//! A panic in any thread ends the process. A thread that ends in the middle of a decision leaves queues half
//! changed, and without its thread storage writes nothing any more. A restart takes little time and continues with
//! what is on disk.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

/// The exit code after a panic: `EX_SOFTWARE` of sysexits.
pub const EXIT_CODE: i32 = 70;

/// From now on a panic of any thread is logged and ends the process with [`EXIT_CODE`] before the stack is unwound.
/// So no other thread continues with what the thread had locked.
pub fn end_the_process() {
    panic::set_hook(Box::new(|panicked| {
        tracing::error!("{}", said_of(panicked));
        std::process::exit(EXIT_CODE);
    }));
}

fn said_of(panicked: &PanicHookInfo<'_>) -> String {
    let what = panicked.payload_as_str().unwrap_or("something that is no text");
    let place = panicked.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let said = format!("this is a bug in FerryMQ, and the server ends: thread '{thread}' panicked at {place}: {what}");
    // Only with RUST_BACKTRACE: a backtrace takes megabytes, and there may be no memory left.
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured { format!("{said}\n{trace}") } else { said }
}
