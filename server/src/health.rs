//! What is unwell on the disk, for the log and INFO: rows that cannot be read, rows that were given up, files
//! that are no longer merged.
//!
//! A damaged block is met by whoever reads it, or by RocksDB when it merges files. Either way the files are
//! then read through once, by a thread of its own, and what cannot be read is named.

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use lattis_engine::repair;
use lattis_engine::store::{Hole, StoreError};

use crate::data::Engine;

/// Ranges that are named in the log at most.
const NAMED: usize = 20;

type Scrubbed = Result<Vec<Hole>, StoreError>;

/// What is known so far.
#[derive(Debug, Default)]
pub struct Health {
    /// Somebody has met what cannot be read.
    unread: bool,
    unmerged: bool,
    lost: u64,
    /// What cannot be read, once all was looked through.
    holes: Option<usize>,
    scrub: Option<Receiver<Scrubbed>>,
}

impl Health {
    /// `ok`, or `damaged`.
    pub fn state(&self) -> &'static str {
        if self.unread || self.unmerged || self.lost > 0 { "damaged" } else { "ok" }
    }

    /// Ranges of rows that cannot be read; `None` as long as nobody has looked.
    pub fn damaged_ranges(&self) -> Option<usize> {
        self.holes
    }

    /// Whether files of rows are merged.
    pub fn merges(&self) -> bool {
        !self.unmerged
    }

    /// Looks how things are; to be called now and then.
    pub fn look(&mut self, engine: &Engine) {
        let (unread, unmerged) = (engine.has_unread(), engine.store().is_unmerged());
        if unmerged && !self.unmerged {
            tracing::error!(
                "a file of rows is damaged, so files are no longer merged: everything else is read and \
                 written as before, ever more slowly. See 'Damaged files' in docs/operations.md"
            );
        }
        let begins = (unread && !self.unread) || (unmerged && !self.unmerged);
        (self.unread, self.unmerged) = (unread, unmerged);
        if begins && self.scrub.is_none() && self.holes.is_none() {
            self.begin(engine);
        }
        if let lost @ 1.. = engine.lost_rows()
            && lost != self.lost
        {
            tracing::error!(
                "{lost} rows or ranges of rows could not be read and were given up: this node's state goes \
                 to no peer, and its digest is its own"
            );
            self.lost = lost;
        }
        let scrubbed = self.scrub.as_ref().map(Receiver::try_recv);
        match scrubbed {
            None | Some(Err(TryRecvError::Empty)) => {}
            Some(Err(TryRecvError::Disconnected)) => self.scrub = None,
            Some(Ok(scrubbed)) => {
                self.scrub = None;
                self.tell(scrubbed);
            }
        }
    }

    fn begin(&mut self, engine: &Engine) {
        tracing::error!("rows cannot be read: looking for what is damaged");
        let (to, from) = sync_channel(1);
        let store = engine.store().clone();
        let started = thread::Builder::new().name("scrub".into()).spawn(move || {
            // Nobody may listen any more: the process is about to end.
            let _ = to.send(store.scrub());
        });
        self.scrub = started.is_ok().then_some(from);
    }

    fn tell(&mut self, scrubbed: Scrubbed) {
        let holes = match scrubbed {
            Ok(holes) => holes,
            Err(error) => return tracing::error!("looking for damage failed: {error}"),
        };
        for hole in holes.iter().take(NAMED) {
            let [from, to] = [&hole.from, &hole.to].map(|key| repair::name(hole.family, key));
            tracing::error!("cannot be read: from {from} to {to} ({})", hole.why);
        }
        if let more @ 1.. = holes.len().saturating_sub(NAMED) {
            tracing::error!("cannot be read: {more} ranges more");
        }
        self.holes = Some(holes.len());
    }
}
