//! A panic anywhere ends the process. A thread that ends half-way through a decision leaves queues half changed, and a thread of
//! storage that is gone writes nothing any more; a restart takes moments, and begins with what is on disk.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

/// The exit code of a process that a panic has ended: sysexits' `EX_SOFTWARE`.
pub const EXIT_CODE: i32 = 70;

/// From now on a panic of any thread is logged, and ends the process with [`EXIT_CODE`], before anything is unwound: nobody goes
/// on with what the thread had locked.
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
    let said =
        format!("this is a fault of FerryMQ, and the server ends: thread '{thread}' panicked at {place}: {what}");
    // Only where RUST_BACKTRACE asks for it: it takes megabytes, and there may be no memory left.
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured { format!("{said}\n{trace}") } else { said }
}
