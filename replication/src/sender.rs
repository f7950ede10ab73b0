//! The stream out: one link's cursor over this node's delivery log, on two lanes.
//!
//! Positions are told in log order on the order lane, and none is skipped, except those that the peer is
//! known *by this connection* to have. A position is *eager* if this link's payload lane brings the commit,
//! else *lazy*: by a mode per origin. What is eager follows on the payload lane, and a commit that is only
//! passed on goes there as soon as it has arrived here ([`Sender::forward`]), before anybody knows its place.
//!
//! Each lane has a window of its own, and neither waits for the other's. Beyond a small buffer the log itself
//! is the queue: the buffer is dropped and read again from the cursor, never an entry lost.
//!
//! A peer of version 1 has one lane: there the commit travels at its place in the order.

use std::collections::{BTreeMap, VecDeque};

use lattis_engine::causal::{LogPosition, NodeId, Origin, VersionVector};
use lattis_engine::commit::{EncodedCommit, LogEntry};

use crate::wire::{Item, Position, payload_cost};

/// Body bytes of one stream frame, about.
const BATCH_BYTES: u64 = 48 << 10;
/// Positions of one frame.
const BATCH_POSITIONS: u64 = 1024;
/// Commits of which it is remembered that they were passed on before their position.
const MAX_AHEAD: usize = 1 << 16;

fn weight(entry: &LogEntry) -> usize {
    64 + match entry {
        LogEntry::Commit(commit) => commit.body.len(),
        LogEntry::Barrier(vector) => vector.len() * 48,
    }
}

/// An entry of which the peer has not everything yet.
#[derive(Debug)]
struct Pending {
    position: LogPosition,
    entry: LogEntry,
    /// The payload lane owes the commit.
    owed: bool,
    /// What the commit, passed on before, takes of the window.
    ahead: u64,
}

#[derive(Debug)]
pub(crate) struct Sender {
    /// What the peer has: its welcome, its acks, and what it told on this connection.
    pub known: VersionVector,
    /// What the peer was told that this node has.
    pub told: VersionVector,
    /// The driver was asked for log entries and has not answered.
    pub reading: bool,
    /// The graft that the driver reads for.
    pub graft: Option<u64>,
    modes: BTreeMap<Origin, bool>,
    /// Whether an origin that no mode is known of is eager.
    eager_unheard: bool,
    catch_up: bool,
    /// Everything up to here is in `pending`, sent, or skipped.
    fed: LogPosition,
    /// Everything up to here is sent or skipped, on both lanes.
    sent: LogPosition,
    pending: VecDeque<Pending>,
    /// How many of them, from the front, have their position told.
    placed: usize,
    pending_bytes: usize,
    buffer: usize,
    /// Commits that arrived here and are passed on before their position.
    forwards: VecDeque<EncodedCommit>,
    /// Commits that the peer need not be sent when their position comes: passed on by this link, with what
    /// that takes of the window, or brought by the peer itself (`None`).
    ahead: BTreeMap<(Origin, u64), Option<u64>>,
    /// What those passed on take of the window in all. At most half of it: what comes in order has all its
    /// causes before it and always finds the other half, so that a full window cannot be one that waits for
    /// what is behind it.
    ahead_cost: u64,
    /// Of the payload lane, in bytes.
    window: u64,
    outstanding: u64,
    /// Of the order lane, in positions.
    positions: u64,
    positions_out: u64,
}

/// Limits of a [`Sender`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of log entries that are buffered.
    pub buffer: usize,
    /// Positions under way.
    pub positions: u64,
    /// Whether an origin that was not heard of is eager.
    pub eager_unheard: bool,
}

impl Sender {
    pub fn new(told: VersionVector, limits: Limits) -> Sender {
        Sender {
            known: VersionVector::new(),
            told,
            reading: false,
            graft: None,
            modes: BTreeMap::new(),
            eager_unheard: limits.eager_unheard,
            catch_up: false,
            fed: LogPosition(0),
            sent: LogPosition(0),
            pending: VecDeque::new(),
            placed: 0,
            pending_bytes: 0,
            buffer: limits.buffer,
            forwards: VecDeque::new(),
            ahead: BTreeMap::new(),
            ahead_cost: 0,
            window: 0,
            outstanding: 0,
            positions: limits.positions,
            positions_out: 0,
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

    /// Everything up to this position is sent.
    pub fn sent(&self) -> LogPosition {
        self.sent
    }

    /// New log entries, the last at `end`. They are kept if they continue what is there.
    pub fn feed(&mut self, end: LogPosition, entries: &[LogEntry], drops: bool) {
        let start = end.0.saturating_sub(entries.len() as u64);
        if self.reading || self.fed.0 < start || self.fed >= end {
            return;
        }
        self.append(start, entries.iter().cloned());
        // What was told is kept: it is owed. One entry may be larger than the buffer.
        while self.pending_bytes > self.buffer && self.pending.len() > self.placed.max(1) {
            let Some(last) = self.pending.pop_back() else { break };
            self.pending_bytes = self.pending_bytes.saturating_sub(self.weight(&last.entry));
            if !drops {
                self.fed = LogPosition(last.position.0 - 1);
            }
        }
    }

    /// What an entry takes of the buffer: a big one leaves room for others behind it.
    fn weight(&self, entry: &LogEntry) -> usize {
        weight(entry).min((self.buffer / 2).max(1))
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
                self.pending_bytes += self.weight(&entry);
                self.pending.push_back(Pending { position, entry, owed: false, ahead: 0 });
            }
        }
    }

    /// Where to read from, if the log has to be read now.
    pub fn wants_read(&self, end: LogPosition) -> Option<LogPosition> {
        let wanted = !self.reading
            && self.placed == self.pending.len()
            && self.pending_bytes <= self.buffer / 2
            && self.fed < end
            && self.positions_out < self.positions;
        wanted.then_some(self.fed)
    }

    fn eager(&self, origin: &Origin, me: NodeId) -> bool {
        let unheard = self.catch_up || self.eager_unheard || origin.node == me;
        self.modes.get(origin).copied().unwrap_or(unheard)
    }

    /// Makes the origin eager (graft) or lazy (prune). What is owed of it then is not sent: the peer has it
    /// from elsewhere, or asks.
    pub fn set_mode(&mut self, origin: Origin, eager: bool) {
        self.modes.insert(origin, eager);
        if !eager {
            let of = |entry: &LogEntry| match entry {
                LogEntry::Commit(commit) => commit.origin == origin,
                LogEntry::Barrier(_) => false,
            };
            self.pending.iter_mut().filter(|it| of(&it.entry)).for_each(|it| it.owed = false);
            self.forwards.retain(|commit| commit.origin != origin);
            let of = self.ahead.keys().filter(|(it, _)| *it == origin);
            for name in of.copied().collect::<Vec<_>>() {
                let cost = self.ahead.remove(&name).flatten().unwrap_or(0);
                self.ahead_cost = self.ahead_cost.saturating_sub(cost);
            }
        }
    }

    /// What is owed, for people.
    pub fn explain(&self) -> String {
        format!(
            "out {} told {} forwards {}, read {} to {} sent {}, under way {} of {} and {}, ahead {}",
            self.pending.len(),
            self.placed,
            self.forwards.len(),
            self.reading,
            self.fed.0,
            self.sent.0,
            self.outstanding,
            self.window,
            self.positions_out,
            self.ahead_cost,
        )
    }

    // ---- passing on ------------------------------------------------------------------------------------

    /// Whether the peer is to be given a commit that has just arrived here: it takes the origin from this
    /// link, there is room, and nothing says that it has the commit.
    pub fn takes(&self, commit: &EncodedCommit, me: NodeId) -> bool {
        self.ahead_cost + payload_cost(commit.body.len(), self.window) <= self.window / 2
            && self.known.get(&commit.origin) < commit.last
            && self.eager(&commit.origin, me)
            && !self.ahead.contains_key(&(commit.origin, commit.first))
    }

    /// Passes on a commit that the peer [takes](Sender::takes). There is no promise yet: what finds no room
    /// goes with its position.
    pub fn forward(&mut self, commit: &EncodedCommit) {
        let cost = payload_cost(commit.body.len(), self.window);
        self.ahead_cost += cost;
        self.ahead.insert((commit.origin, commit.first), Some(cost));
        self.forwards.push_back(commit.clone());
    }

    /// The peer itself brought a commit that this node does not have in its log yet.
    pub fn brought(&mut self, origin: Origin, first: u64) {
        self.ahead.entry((origin, first)).or_insert(None);
    }

    /// Forgets of what was passed on all that the peer is known to have, and if it is too much all the rest:
    /// some may then be sent twice.
    pub fn tidy(&mut self) {
        let Sender { known, ahead, ahead_cost, .. } = self;
        let most = ahead.len() <= MAX_AHEAD;
        ahead.retain(|(origin, first), cost| {
            let kept = most && known.get(origin) < *first;
            if !kept {
                *ahead_cost = ahead_cost.saturating_sub(cost.unwrap_or(0));
            }
            kept
        });
    }

    // ---- the order lane ----------------------------------------------------------------------------------

    /// The next positions, as many as one frame and the window take; empty when there is nothing to tell.
    pub fn order(&mut self, me: NodeId, end: LogPosition, barriers: bool) -> Vec<Position> {
        let mut out: Vec<Position> = Vec::new();
        let mut cost = 0;
        while cost < BATCH_POSITIONS && self.positions_out + cost < self.positions {
            let Some(Pending { entry, .. }) = self.pending.get(self.placed) else { break };
            let place = match entry {
                LogEntry::Commit(EncodedCommit { origin, first, last, .. }) => {
                    let (origin, first, last) = (*origin, *first, *last);
                    let ahead = self.ahead.remove(&(origin, first));
                    let cost = ahead.flatten();
                    // What waits to be passed on goes with its position: it is owed from now on.
                    let waits = cost.is_some() && self.take_forward(origin, first);
                    let owed = waits || ahead.is_none() && self.eager(&origin, me);
                    let eager = owed || cost.is_some();
                    if let Some(pending) = self.pending.get_mut(self.placed) {
                        pending.ahead = cost.unwrap_or(0);
                    }
                    let known = self.known.get(&origin) >= last;
                    (!known).then_some((Position::Commits { origin, first, last, eager }, owed))
                }
                LogEntry::Barrier(vector) if !barriers || self.known.covers(vector) => None,
                LogEntry::Barrier(vector) => Some((Position::Barrier(vector.clone()), false)),
            };
            if let Some((place, owed)) = place {
                match &place {
                    Position::Commits { origin, last, .. } => {
                        self.told.advance(*origin, *last);
                    }
                    Position::Barrier(vector) => {
                        self.told.join(vector);
                    }
                }
                if let Some(pending) = self.pending.get_mut(self.placed) {
                    pending.owed = owed;
                }
                if !merge(out.last_mut(), &place) {
                    cost += 1;
                    out.push(place);
                }
            }
            self.placed += 1;
        }
        self.positions_out += cost;
        self.finish(end);
        out
    }

    /// Takes a commit off the list of those to be passed on; false if it is not on it.
    fn take_forward(&mut self, origin: Origin, first: u64) -> bool {
        let at = self.forwards.iter().position(|it| it.origin == origin && it.first == first);
        at.and_then(|at| self.forwards.remove(at)).is_some()
    }

    /// Takes away what is done from the front.
    fn finish(&mut self, end: LogPosition) {
        while self.placed > 0
            && let Some(done) = self.pending.pop_front_if(|front| !front.owed)
        {
            self.placed -= 1;
            self.sent = done.position;
            self.ahead_cost = self.ahead_cost.saturating_sub(done.ahead);
            self.pending_bytes = self.pending_bytes.saturating_sub(self.weight(&done.entry));
        }
        if self.pending.is_empty() {
            self.sent = self.fed;
        }
        if self.sent >= end {
            self.catch_up = false;
        }
    }

    // ---- the payload lane --------------------------------------------------------------------------------

    /// The next commits, as many as one frame and the window take; empty when there is nothing to send, or
    /// no room for it.
    pub fn payload(&mut self, end: LogPosition) -> Vec<EncodedCommit> {
        let mut out = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES {
            // Those in front that owe nothing are gone: the first one waits, or nothing is owed.
            let owed = self.pending.front().filter(|front| front.owed);
            let (commit, passed_on) = match (self.forwards.front(), owed.map(|front| &front.entry))
            {
                (Some(commit), _) => (commit.clone(), true),
                (None, Some(LogEntry::Commit(commit))) => (commit.clone(), false),
                _ => break,
            };
            let needed = self.known.get(&commit.origin) < commit.last;
            let cost = payload_cost(commit.body.len(), self.window);
            if needed && self.outstanding + cost > self.window {
                break;
            }
            if passed_on {
                self.forwards.pop_front();
            } else if let Some(front) = self.pending.front_mut() {
                front.owed = false;
            }
            if needed {
                self.outstanding += cost;
                bytes += commit.body.len() as u64 + 64;
                out.push(commit);
            }
            self.finish(end);
        }
        out
    }

    // ---- version 1 ---------------------------------------------------------------------------------------

    /// The next items of a stream of version 1: positions with their commits, under one window.
    pub fn items(&mut self, me: NodeId, end: LogPosition) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        let mut cost = 0;
        while cost < BATCH_BYTES {
            let Some(Pending { entry, .. }) = self.pending.front() else { break };
            let item = match entry {
                LogEntry::Commit(commit) if self.known.get(&commit.origin) >= commit.last => None,
                LogEntry::Commit(commit) if self.eager(&commit.origin, me) => {
                    Some(Item::Commit(commit.clone()))
                }
                LogEntry::Commit(EncodedCommit { origin, first, last, .. }) => {
                    Some(Item::Marker { origin: *origin, first: *first, last: *last })
                }
                LogEntry::Barrier(vector) if self.known.covers(vector) => None,
                LogEntry::Barrier(vector) => Some(Item::Barrier(vector.clone())),
            };
            if let Some(item) = item {
                let under_way = self.outstanding + cost;
                if under_way > 0 && under_way + item.cost() > self.window {
                    break;
                }
                match &item {
                    Item::Commit(EncodedCommit { origin, last, .. })
                    | Item::Marker { origin, last, .. } => self.told.advance(*origin, *last),
                    Item::Barrier(vector) => self.told.join(vector),
                };
                cost += item.cost();
                items.push(item);
            }
            self.placed = 1;
            self.finish(end);
        }
        self.outstanding += cost;
        self.finish(end);
        items
    }

    /// The peer gave back of its windows; false if it gives more than it got.
    pub fn acked(&mut self, consumed: u64, positions: u64) -> bool {
        match (self.outstanding.checked_sub(consumed), self.positions_out.checked_sub(positions)) {
            (Some(bytes), Some(places)) => {
                (self.outstanding, self.positions_out) = (bytes, places);
                true
            }
            _ => false,
        }
    }
}

/// Joins a position to the one before it, if it continues that.
fn merge(last: Option<&mut Position>, next: &Position) -> bool {
    match (last, next) {
        (
            Some(Position::Commits { origin, last: end, eager, .. }),
            Position::Commits { origin: of, first, last, eager: is },
        ) if of == origin && is == eager && *first == *end + 1 => {
            *end = *last;
            true
        }
        _ => false,
    }
}
