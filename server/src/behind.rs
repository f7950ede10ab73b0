//! Rows are written behind the log: a thread that takes what has gathered and writes it.
//!
//! Once a second, or when much has gathered, the engine's thread hands over a generation. One is written at
//! a time; if as much again has gathered before it is done, the engine's thread waits for it, so that
//! neither memory nor the time of the next start grows without bound. A generation that finds the disk full,
//! or the store damaged, goes with the next one; any other failure ends the process, as a start finds out
//! what has reached the disk.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use lattis_engine::Generation;
use lattis_engine::store::StoreError;

use crate::{allocator, logging, process, sync};

/// How often rows are written, if not much has gathered.
const PERIOD: Duration = Duration::from_secs(1);

/// Writes a generation; callable from any thread.
pub type WriteFn = Box<dyn Fn(&mut Generation) -> Result<(), StoreError> + Send>;

/// A generation, and what became of it.
pub type Written = (Generation, Result<(), StoreError>);

/// The thread, as the engine's thread sees it.
#[derive(Debug)]
pub struct Behind {
    to: SyncSender<Generation>,
    from: Receiver<Written>,
    is_writing: bool,
    next: Instant,
}

impl Behind {
    /// Starts the thread. It ends with its owner.
    pub fn start(write: WriteFn) -> io::Result<Behind> {
        let (to, theirs) = sync_channel::<Generation>(1);
        let (done, from) = sync_channel(1);
        thread::Builder::new().name("behind".into()).spawn(move || {
            for mut generation in theirs {
                let result = write(&mut generation);
                sync::expect_known(&result);
                if let Err(StoreError::Corrupt(why)) = &result {
                    tracing::error!("rows cannot be written, since the store is damaged: {why}");
                }
                if done.send((generation, result)).is_err() {
                    return;
                }
                allocator::follow();
            }
        })?;
        Ok(Behind { to, from, is_writing: false, next: Instant::now() })
    }

    /// Whether one is in the making.
    pub fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// Whether a generation should be taken now; `much` says whether much has gathered.
    pub fn is_due(&self, now: Instant, much: bool) -> bool {
        now >= self.next || (much && now + PERIOD >= self.next)
    }

    /// Hands over a generation. None may be in the making.
    pub fn write(&mut self, generation: Generation, now: Instant) {
        if self.to.send(generation).is_err() {
            gone();
        }
        self.is_writing = true;
        self.next = now + PERIOD;
    }

    /// What became of the generation in the making, if it is done.
    pub fn poll(&mut self) -> Option<Written> {
        if !self.is_writing {
            return None;
        }
        let written = match self.from.try_recv() {
            Ok(written) => Some(written),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => gone(),
        };
        self.is_writing = written.is_none();
        self.note(written)
    }

    /// Waits for the generation in the making, if there is one.
    pub fn finish(&mut self) -> Option<Written> {
        if !self.is_writing {
            return None;
        }
        self.is_writing = false;
        let written = self.from.recv().unwrap_or_else(|_| gone());
        self.note(Some(written))
    }

    /// After a full disk nothing is tried for a while, however much has gathered.
    fn note(&mut self, written: Option<Written>) -> Option<Written> {
        if let Some((_, Err(_))) = &written {
            self.next = Instant::now() + 2 * PERIOD;
        }
        written
    }
}

/// Rows that nobody writes would be lost with the log that holds them, once that is trimmed.
fn gone() -> ! {
    logging::last_words("the thread that writes rows is gone");
    process::end(process::FAILED)
}
