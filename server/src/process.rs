//! The process: how it ends, and what signals mean to it.
//!
//! It ends whole or not at all. A thread that panics ends it, whichever it is, so that no half of a node goes
//! on without the other; a question from one thread to another therefore needs no end of its own for the
//! case that the other is gone. And it ends without the destructors of a C or C++ program: those of the
//! store must not run while its threads live.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};

use crate::logging;

/// The exit code of a node that could not start or had to stop.
pub const FAILED: u8 = 1;
/// The exit code after a panic.
pub const PANICKED: u8 = 101;

/// Ends the process at once. What was not written is not written.
pub fn end(code: u8) -> ! {
    low_level::exit(code.into())
}

/// From now on a panic of any thread ends the process, with a message.
pub fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        logging::last_words(&message(panic));
        // Only if RUST_BACKTRACE asks for it.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            logging::say(&backtrace.to_string());
        }
        end(PANICKED)
    }));
}

fn message(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
    format!(
        "a fault of the program in thread '{}'{place}: {}. The process ends; what was answered is in the log",
        thread.name().unwrap_or("unnamed"),
        panic.payload_as_str().unwrap_or("no reason given"),
    )
}

/// What signals ask for.
///
/// | signal | meaning |
/// |---|---|
/// | SIGTERM, SIGINT | stop; a second one ends the process at once |
/// | SIGHUP | open the log file anew |
/// | SIGUSR1, SIGUSR2, SIGPIPE | nothing |
/// | SIGQUIT and the others | as the system has it: the process ends, perhaps with a core dump |
#[derive(Debug)]
pub struct Signals {
    /// Becomes readable when one arrives.
    pub pipe: UnixStream,
    stop: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
}

impl Signals {
    /// Takes the signals over.
    pub fn catch() -> io::Result<Signals> {
        let (read, write) = std::os::unix::net::UnixStream::pair()?;
        let (stop, reopen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the second signal finds the flag set.
            flag::register_conditional_shutdown(signal, FAILED.into(), Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
            low_level::pipe::register(signal, write.try_clone()?)?;
        }
        flag::register(SIGHUP, Arc::clone(&reopen))?;
        low_level::pipe::register(SIGHUP, write)?;
        for signal in [SIGUSR1, SIGUSR2] {
            flag::register(signal, Arc::default())?;
        }
        read.set_nonblocking(true)?;
        Ok(Signals { pipe: UnixStream::from_std(read), stop, reopen })
    }

    /// Whether to stop; does what else was asked for.
    pub fn take(&mut self) -> bool {
        let mut bytes = [0; 64];
        // What is left over wakes nobody again, and need not: the flags tell.
        while matches!(io::Read::read(&mut self.pipe, &mut bytes), Ok(1..)) {}
        if self.reopen.swap(false, Ordering::AcqRel) {
            logging::reopen();
        }
        self.stop.load(Ordering::Acquire)
    }
}
