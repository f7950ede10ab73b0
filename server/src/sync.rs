//! `appendfsync everysec`: a thread that syncs the log once a second.
//!
//! A sync that takes long is no reason to stop, until two seconds of writes are at stake: then writers wait
//! for it. A sync that fails ends the process: what the kernel has dropped cannot be written again, and
//! going on would acknowledge what is lost.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lattis_engine::store::StoreError;

use crate::{logging, process};

/// Syncs the store; callable from any thread.
pub type SyncFn = Arc<dyn Fn() -> Result<(), StoreError> + Send + Sync>;

/// Longer than this, and writers wait.
const LATE: Duration = Duration::from_secs(2);
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct State {
    /// When the running sync began.
    began: Option<Instant>,
    /// Something was written since the last sync began.
    dirty: bool,
    /// Whether to sync at all (CONFIG SET appendfsync).
    enabled: bool,
    stop: bool,
}

/// The thread and what it shares with the loop.
#[derive(Debug)]
pub struct Syncer {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Syncer {
    /// Starts the thread.
    pub fn start(sync: SyncFn) -> io::Result<Syncer> {
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("sync".into()).spawn(move || run(&theirs, &sync))?;
        Ok(Syncer { shared })
    }

    /// Notes that something was written, and whether it is to be synced each second.
    pub fn wrote(&self, enabled: bool) {
        let mut state = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.dirty = true;
        state.enabled = enabled;
    }

    /// Waits while a sync has been running for too long.
    pub fn wait_if_late(&self) {
        let (state, finished) = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.began.is_some_and(|began| began.elapsed() >= LATE) {
            let waited = finished.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.1.notify_all();
    }
}

fn run(shared: &(Mutex<State>, Condvar), sync: &SyncFn) {
    let (lock, changed) = shared;
    let mut state = lock.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let next = Instant::now() + PERIOD;
        while !state.stop {
            let Some(rest) = next.checked_duration_since(Instant::now()) else { break };
            let waited = changed.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.stop {
            return;
        }
        if !state.dirty || !state.enabled {
            continue;
        }
        state.dirty = false;
        state.began = Some(Instant::now());
        drop(state);
        let result = sync();
        if let Err(error) = result {
            fail(&error);
        }
        state = lock.lock().unwrap_or_else(PoisonError::into_inner);
        state.began = None;
        changed.notify_all();
    }
}

/// Ends the process if it is not known what a write of rows has left on the disk. A full disk has taken
/// nothing, nor has a file that cannot be read.
pub fn expect_known<T>(result: &Result<T, StoreError>) {
    match result {
        Ok(_) | Err(StoreError::Full(_) | StoreError::Corrupt(_)) => {}
        Err(error) => fail(error),
    }
}

/// Ends the process: what is on the disk is not known, and only a start can find out.
pub fn fail(error: &StoreError) -> ! {
    logging::last_words(&format!(
        "the disk has failed: {error}. Writes of the last second may be lost, and the kernel will not \
         try again. The process ends"
    ));
    process::end(process::FAILED)
}
