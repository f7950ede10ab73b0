//! The stream out: one link's cursor over this node's delivery log.
//!
//! Positions are sent in log order and none is skipped, except those that the peer is known *by this
//! connection* to have. A position goes as the commit (eager) or as a marker (lazy), by a mode per
//! origin. At most a window of un-acked bytes is under way; beyond a small buffer the log itself is the
//! queue: the buffer is dropped and read again from the cursor, never an entry lost.

use std::collections::{BTreeMap, VecDeque};

use lattis_engine::causal::{LogPosition, NodeId, Origin, VersionVector};
use lattis_engine::commit::LogEntry;

use crate::wire::Item;

/// Body bytes of one stream frame, about.
const BATCH_BYTES: u64 = 64 << 10;

fn weight(entry: &LogEntry) -> usize {
    64 + match entry {
        LogEntry::Commit(commit) => commit.body.len(),
        LogEntry::Barrier(vector) => vector.len() * 48,
    }
}

/// A snapshot being sent.
#[derive(Debug)]
pub(crate) struct StateOut {
    /// Parts that the peer still takes.
    pub credit: u32,
    /// Whether the driver was asked for a part.
    pub asked: bool,
}

#[derive(Debug)]
pub(crate) struct Sender {
    /// What the peer has: its welcome, its acks, and what it streamed on this connection.
    pub known: VersionVector,
    /// What the peer was told that this node has.
    pub told: VersionVector,
    /// The driver was asked for log entries and has not answered.
    pub reading: bool,
    /// The graft that the driver reads for.
    pub graft: Option<u64>,
    /// The snapshot that is being sent.
    pub state: Option<StateOut>,
    modes: BTreeMap<Origin, bool>,
    catch_up: bool,
    /// Everything up to here is in `pending`, sent, or skipped.
    fed: LogPosition,
    /// Everything up to here is sent or skipped.
    sent: LogPosition,
    pending: VecDeque<(LogPosition, LogEntry)>,
    pending_bytes: usize,
    buffer: usize,
    window: u64,
    outstanding: u64,
}

impl Sender {
    pub fn new(known: VersionVector, told: VersionVector, buffer: usize) -> Sender {
        Sender {
            known,
            told,
            reading: false,
            graft: None,
            state: None,
            modes: BTreeMap::new(),
            catch_up: false,
            fed: LogPosition(0),
            sent: LogPosition(0),
            pending: VecDeque::new(),
            pending_bytes: 0,
            buffer,
            window: 0,
            outstanding: 0,
        }
    }

    /// The peer's wishes, from its welcome.
    pub fn open(&mut self, window: u64, catch_up: bool) {
        self.window = window;
        self.catch_up = catch_up;
    }

    /// For the planted fault "from now on".
    pub fn start_at(&mut self, position: LogPosition) {
        self.fed = position;
        self.sent = position;
    }

    /// New log entries, the last at `end`. They are kept if they continue what is there.
    pub fn feed(&mut self, end: LogPosition, entries: &[LogEntry], drops: bool) {
        let start = end.0.saturating_sub(entries.len() as u64);
        if self.reading || self.fed.0 < start || self.fed >= end {
            return;
        }
        self.append(start, entries.iter().cloned());
        if self.pending_bytes > self.buffer {
            self.pending.clear();
            self.pending_bytes = 0;
            if !drops {
                self.fed = self.sent;
            }
        }
    }

    /// The driver's answer: entries up to position `upto`; what lies beyond `end` is not for now.
    pub fn chunk(&mut self, upto: LogPosition, entries: Vec<LogEntry>, end: LogPosition) {
        self.reading = false;
        let start = upto.0.saturating_sub(entries.len() as u64);
        let within = end.0.saturating_sub(start);
        let within = usize::try_from(within).unwrap_or(usize::MAX).min(entries.len());
        self.append(start, entries.into_iter().take(within));
        // Where the answer begins later than asked for, the driver knows that the peer has what is before.
        self.fed = self.fed.max(upto.min(end));
    }

    fn append(&mut self, start: u64, entries: impl Iterator<Item = LogEntry>) {
        for (index, entry) in entries.enumerate() {
            let position = LogPosition(start + 1 + index as u64);
            if position > self.fed {
                self.fed = position;
                self.pending_bytes += weight(&entry);
                self.pending.push_back((position, entry));
            }
        }
    }

    /// Where to read from, if the log has to be read now.
    pub fn wants_read(&self, end: LogPosition) -> Option<LogPosition> {
        let wanted = !self.reading
            && self.pending.is_empty()
            && self.fed < end
            && self.outstanding < self.window;
        wanted.then_some(self.fed)
    }

    fn eager(&self, origin: &Origin, me: NodeId) -> bool {
        self.modes.get(origin).copied().unwrap_or(self.catch_up || origin.node == me)
    }

    /// Makes the origin eager (graft) or lazy (prune).
    pub fn set_mode(&mut self, origin: Origin, eager: bool) {
        self.modes.insert(origin, eager);
    }

    /// The next items, as many as one frame and the window take; empty when there is nothing to send.
    pub fn pump(&mut self, me: NodeId, end: LogPosition, barriers: bool) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        let mut cost = 0;
        while cost < BATCH_BYTES {
            let Some((position, entry)) = self.pending.front() else { break };
            let item = match entry {
                LogEntry::Commit(commit) if self.known.get(&commit.origin) >= commit.last => None,
                LogEntry::Commit(commit) if self.eager(&commit.origin, me) => {
                    Some(Item::Commit(commit.clone()))
                }
                LogEntry::Commit(commit) => {
                    let (origin, first, last) = (commit.origin, commit.first, commit.last);
                    Some(Item::Marker { origin, first, last })
                }
                LogEntry::Barrier(vector) if !barriers || self.known.covers(vector) => None,
                LogEntry::Barrier(vector) => Some(Item::Barrier(vector.clone())),
            };
            if let Some(item) = item {
                let under_way = self.outstanding + cost;
                match (items.last_mut(), &item) {
                    (
                        Some(Item::Marker { origin, last: end, .. }),
                        Item::Marker { origin: of, first, last },
                    ) if of == origin && *first == *end + 1 => {
                        *end = *last;
                        self.told.advance(*of, *last);
                    }
                    _ if under_way > 0 && under_way + item.cost() > self.window => break,
                    _ => {
                        match &item {
                            Item::Commit(commit) => {
                                self.told.advance(commit.origin, commit.last);
                            }
                            Item::Marker { origin, last, .. } => {
                                self.told.advance(*origin, *last);
                            }
                            Item::Barrier(vector) => {
                                self.told.join(vector);
                            }
                        }
                        cost += item.cost();
                        items.push(item);
                    }
                }
            }
            self.sent = *position;
            if let Some((_, entry)) = self.pending.pop_front() {
                self.pending_bytes = self.pending_bytes.saturating_sub(weight(&entry));
            }
        }
        if self.pending.is_empty() {
            self.sent = self.fed;
        }
        if self.sent >= end {
            self.catch_up = false;
        }
        self.outstanding += cost;
        items
    }

    /// The peer gave window bytes back; false if it gives more than it got.
    pub fn acked(&mut self, consumed: u64) -> bool {
        match self.outstanding.checked_sub(consumed) {
            Some(rest) => {
                self.outstanding = rest;
                true
            }
            None => false,
        }
    }
}
