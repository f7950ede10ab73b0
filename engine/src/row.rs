//! Rows: the dotted state that every CRDT type is made of.
//!
//! A row holds *siblings* (payloads that no write has superseded, each under the dot that wrote it)
//! and *counter entries* (one per origin, written by that origin alone). What the type slot means by
//! them is the business of `crdt/`; how they change and merge is the same for all and stands here:
//!
//! * [`Row::apply`] joins one delta of a commit, delivered in causal order;
//! * [`Row::diff`] is its inverse: the delta that leads from one state of a row to another;
//! * [`Row::join`] merges the whole states of two nodes, with their vectors as causal context.
//!
//! There are no tombstones: a dot that is covered by a node's vector and absent from its row was
//! removed there. (Almeida, Shoker, Baquero: "Delta State Replicated Data Types", 2018, with one
//! causal context for the whole node as in "Concise Server-Wide Causality Management", 2015.)
//! Counter entries follow MODEL M2: sums and resets are ordered by dots, never by value.

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::causal::{Dot, Hlc, Millis, Origin, Stamp, VersionVector};
use crate::codec::{CodecError, Reader, Writer};
use crate::commit::{CounterReset, Delta, Increment};
use crate::pages::LARGE;

/// A payload that no write has superseded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The effect that wrote it.
    pub dot: Dot,
    /// The stamp of that effect's commit.
    pub stamp: Stamp,
    /// What it wrote, as the type slot encodes it.
    pub payload: Bytes,
}

impl Sibling {
    /// Whether it was written after a deadline.
    pub fn is_after(&self, deadline: Millis) -> bool {
        self.stamp.written > deadline || deadline == Millis(0)
    }

    /// The order of last-writer-wins: total, the same at every node.
    fn rank(&self) -> (Hlc, Dot) {
        (self.stamp.hlc, self.dot)
    }
}

/// The increments of one origin: a running sum, and how much of it resets have taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterEntry {
    /// Who increments; nobody else writes the sum.
    pub origin: Origin,
    /// The seq of the dot that opened this generation.
    pub generation: u64,
    /// When the generation was opened.
    pub born: Hlc,
    /// The seq of the newest increment.
    pub last: u64,
    /// The stamp of the newest increment: by it a deadline covers the entry as a whole or not at all, since
    /// a running sum cannot be split.
    pub stamp: Stamp,
    /// Exact sum since the generation was opened.
    pub sum: i128,
    /// The newest increment that an applied reset has observed, 0 if none.
    pub reset_last: u64,
    /// The sum at that increment.
    pub reset_sum: i128,
    /// The reset's own dot: a datum that a merge can change needs one to travel under.
    pub reset_dot: Option<Dot>,
}

impl CounterEntry {
    /// Whether there are increments that no applied reset has observed. Such an entry makes the key
    /// exist, even at 0; any other is residue.
    pub fn is_live(&self) -> bool {
        self.last > self.reset_last
    }

    /// Whether the newest increment was made after a deadline.
    pub fn is_after(&self, deadline: Millis) -> bool {
        self.stamp.written > deadline || deadline == Millis(0)
    }

    /// What the entry adds to the base.
    pub fn value(&self) -> i128 {
        self.sum.wrapping_sub(self.reset_sum)
    }

    /// Joins a reset of this generation: the one that observed more wins, ties go to the larger dot.
    fn reset(&mut self, last: u64, sum: i128, dot: Dot) {
        if (last, Some(dot)) > (self.reset_last, self.reset_dot) {
            self.reset_last = last;
            self.reset_sum = sum;
            self.reset_dot = Some(dot);
        }
    }
}

/// One row of one type slot of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Winner first: descending by (stamp, dot).
    siblings: SmallVec<[Sibling; 1]>,
    /// Ascending by origin.
    counters: Vec<CounterEntry>,
    /// Not part of the value.
    hash: Known,
}

/// What the digest has of a row, so that it need not be computed again when the row goes. Only the keyspace
/// sets it, for rows that it holds; it says nothing of a copy that was changed.
#[derive(Clone, Copy, Debug, Default)]
struct Known([u64; 2]);

/// Equal rows are equal whether their hash is known or not.
impl PartialEq for Known {
    fn eq(&self, _: &Known) -> bool {
        true
    }
}

impl Eq for Known {}

/// What a register shows: the winning payload, or a number once increments are in play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'r> {
    /// The payload of the winning sibling.
    Payload(&'r Bytes),
    /// The same, where it lies in memory.
    Packed(&'r [u8]),
    /// Base plus increments, saturated to 64 bits.
    Number(i64),
}

impl<'r> Shown<'r> {
    /// As the client reads it.
    pub fn text(self) -> Cow<'r, [u8]> {
        match self {
            Shown::Payload(bytes) => Cow::Borrowed(bytes),
            Shown::Packed(bytes) => Cow::Borrowed(bytes),
            Shown::Number(number) => Cow::Owned(number.to_string().into_bytes()),
        }
    }

    /// The same, to keep.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Shown::Payload(bytes) => bytes.clone(),
            Shown::Packed(bytes) => Bytes::copy_from_slice(bytes),
            Shown::Number(number) => Bytes::from(number.to_string()),
        }
    }
}

/// Reads an integer as Redis does: canonical decimal of 64 bits, no sign `+`, no leading zero.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.len() < 19 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl Row {
    /// Siblings, winner first.
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// Counter entries, residue included, by origin.
    pub fn counters(&self) -> &[CounterEntry] {
        &self.counters
    }

    /// Whether any stamp was ahead of its writer's wall clock.
    pub(crate) fn has_lead(&self) -> bool {
        let siblings = self.siblings.iter().map(|sibling| sibling.stamp);
        siblings.chain(self.counters.iter().map(|entry| entry.stamp)).any(|it| it.lead() > 0)
    }

    /// Whether nothing is left, not even residue.
    pub fn is_empty(&self) -> bool {
        self.siblings.is_empty() && self.counters.is_empty()
    }

    /// Whether anything is left that counts; residue does not.
    pub fn is_live(&self) -> bool {
        !self.siblings.is_empty() || self.counters.iter().any(CounterEntry::is_live)
    }

    /// Whether anything written after `hidden` is left. A deadline hides what was written at it or before, by
    /// the writer's wall clock.
    pub fn is_visible(&self, hidden: Millis) -> bool {
        self.winner(hidden).is_some()
            || self.counters.iter().any(|entry| entry.is_live() && entry.is_after(hidden))
    }

    /// The winning sibling among those written after `hidden`; 0 hides nothing.
    pub fn winner(&self, hidden: Millis) -> Option<&Sibling> {
        // The order is that of the hybrid clock: what was written last need not be the first.
        self.siblings.iter().find(|sibling| sibling.is_after(hidden))
    }

    /// What a register shows of what was written after `hidden`: the winner if there are no increments or
    /// if it is not a number (they are kept and not shown), else base plus increments.
    pub fn shown(&self, hidden: Millis) -> Option<Shown<'_>> {
        let winner = self.winner(hidden);
        if self.counters.is_empty() {
            return winner.map(|sibling| Shown::Payload(&sibling.payload));
        }
        let mut increments = None;
        for entry in self.counters.iter().filter(|entry| entry.is_live() && entry.is_after(hidden))
        {
            increments = Some(increments.unwrap_or(0i128).saturating_add(entry.value()));
        }
        match (winner, increments) {
            (None, None) => None,
            (Some(sibling), None) => Some(Shown::Payload(&sibling.payload)),
            (None, Some(sum)) => Some(Shown::Number(saturate(sum))),
            (Some(sibling), Some(sum)) => Some(match parse_integer(&sibling.payload) {
                Some(base) => Shown::Number(saturate(sum.saturating_add(i128::from(base)))),
                None => Shown::Payload(&sibling.payload),
            }),
        }
    }

    /// When the slot of a single-row register was born: by its winning write, or, for increments alone,
    /// by the youngest generation.
    pub fn born(&self, hidden: Millis) -> (Hlc, Origin) {
        match self.winner(hidden) {
            Some(sibling) => (sibling.stamp.hlc, sibling.dot.origin),
            None => self
                .counters
                .iter()
                .filter(|entry| entry.is_live() && entry.is_after(hidden))
                .map(|entry| (entry.born, entry.origin))
                .max()
                .unwrap_or_default(),
        }
    }

    /// Whether the row is one sibling, of this dot and payload, and no counters: a put changes nothing.
    pub(crate) fn is_just(&self, dot: &Dot, payload: &Bytes) -> bool {
        match self.siblings.as_slice() {
            [only] => only.dot == *dot && only.payload == *payload && self.counters.is_empty(),
            _ => false,
        }
    }

    /// Bytes that the row holds outside itself, for the cache's accounts.
    pub fn heap_bytes(&self) -> usize {
        let payloads: usize = self.siblings.iter().map(|sibling| sibling.payload.len()).sum();
        let spilled = if self.siblings.spilled() {
            self.siblings.capacity() * size_of::<Sibling>()
        } else {
            0
        };
        payloads + spilled + self.counters.capacity() * size_of::<CounterEntry>()
    }

    /// The hash that was kept with this row, 0 if none was.
    pub(crate) fn known_hash(&self) -> u128 {
        let [high, low] = self.hash.0;
        u128::from(high) << 64 | u128::from(low)
    }

    /// Keeps the row's hash with it.
    pub(crate) fn keep_hash(&mut self, hash: u128) {
        self.hash = Known([(hash >> 64) as u64, hash as u64]);
    }

    /// For planted faults.
    #[cfg(feature = "planted")]
    pub(crate) fn parts(&mut self) -> (&mut SmallVec<[Sibling; 1]>, &mut Vec<CounterEntry>) {
        (&mut self.siblings, &mut self.counters)
    }

    fn entry_index(&self, origin: &Origin) -> Result<usize, usize> {
        self.counters.binary_search_by(|entry| entry.origin.cmp(origin))
    }

    /// The entry of one origin.
    pub fn entry(&self, origin: &Origin) -> Option<&CounterEntry> {
        self.entry_index(origin).ok().map(|index| &self.counters[index])
    }

    /// The counter entries alone: what a write that supersedes all siblings begins with.
    pub(crate) fn without_siblings(&self) -> Row {
        Row { counters: self.counters.clone(), ..Row::default() }
    }

    // ---- writes of this node -----------------------------------------------------------------------

    /// Supersedes all that is there: observed siblings, observed increments of others, own entry.
    pub fn supersede(&mut self, dot: Dot) {
        self.siblings.clear();
        self.reset_entries(dot, |_| true);
    }

    /// Supersedes what was written at `end` or before: what a deadline removes (MODEL M7).
    pub fn supersede_until(&mut self, end: Millis, dot: Dot) {
        self.siblings.retain(|sibling| sibling.stamp.written > end);
        self.reset_entries(dot, |entry| entry.stamp.written <= end);
    }

    fn reset_entries(&mut self, dot: Dot, which: impl Fn(&CounterEntry) -> bool) {
        self.counters.retain(|entry| entry.origin != dot.origin || !which(entry));
        for entry in self.counters.iter_mut().filter(|entry| entry.is_live()) {
            if which(entry) {
                entry.reset(entry.last, entry.sum, dot);
            }
        }
    }

    /// Leaves one sibling, superseding all that is there.
    pub fn put(&mut self, dot: Dot, stamp: impl Into<Stamp>, payload: Bytes) {
        self.supersede(dot);
        self.siblings.push(Sibling { dot, stamp: stamp.into(), payload });
    }

    /// Leaves one more sibling, superseding those that `superseded` names.
    pub fn put_beside(
        &mut self,
        dot: Dot,
        stamp: impl Into<Stamp>,
        payload: Bytes,
        superseded: impl Fn(&Sibling) -> bool,
    ) {
        self.siblings.retain(|sibling| !superseded(sibling));
        self.insert(Sibling { dot, stamp: stamp.into(), payload });
    }

    /// Adds to the own entry. A first increment, or one after a reset that covered the whole entry,
    /// opens a new generation.
    pub fn increment(&mut self, dot: Dot, stamp: impl Into<Stamp>, by: i128) {
        let stamp = stamp.into();
        let open = |sum| CounterEntry {
            origin: dot.origin,
            generation: dot.seq,
            born: stamp.hlc,
            last: dot.seq,
            stamp,
            sum,
            reset_last: 0,
            reset_sum: 0,
            reset_dot: None,
        };
        match self.entry_index(&dot.origin) {
            Err(index) => self.counters.insert(index, open(by)),
            Ok(index) if !self.counters[index].is_live() => self.counters[index] = open(by),
            Ok(index) => {
                let entry = &mut self.counters[index];
                entry.last = dot.seq;
                entry.stamp = stamp;
                entry.sum = entry.sum.wrapping_add(by);
            }
        }
    }

    // ---- effects -------------------------------------------------------------------------------------

    /// The delta under `dot` that leads from `before` to `self`, where `self` was made from `before` by
    /// writes of this node under that dot, and by clears, which tell of what they do themselves.
    pub fn diff(&self, before: &Row, dot: Dot) -> Delta {
        let mut delta = Delta::default();
        for sibling in &before.siblings {
            if !self.siblings.iter().any(|left| left.dot == sibling.dot) {
                delta.replaces.push(sibling.dot);
            }
        }
        for entry in &before.counters {
            let after = self.entry(&entry.origin);
            if entry.origin == dot.origin {
                delta.resets_own = after.is_none_or(|own| own.generation != entry.generation);
            } else if after.is_some_and(|after| after.reset_dot == Some(dot)) {
                delta.resets.push(CounterReset {
                    origin: entry.origin,
                    generation: entry.generation,
                    last: entry.last,
                    sum: entry.sum,
                });
            }
        }
        delta.put = self
            .siblings
            .iter()
            .find(|sibling| sibling.dot == dot)
            .map(|sibling| sibling.payload.clone());
        delta.add = self
            .entry(&dot.origin)
            .filter(|own| own.last == dot.seq)
            .map(|own| Increment { generation: own.generation, sum: own.sum });
        delta
    }

    /// Joins one delta, delivered in causal order. Idempotent for a dot that is already there, and
    /// commutes with concurrent deltas. Cost: the row's size times what the delta names.
    pub fn apply(&mut self, delta: &Delta, dot: Dot, stamp: impl Into<Stamp>) {
        let stamp = stamp.into();
        if !delta.replaces.is_empty() {
            self.siblings.retain(|sibling| !delta.replaces.contains(&sibling.dot));
        }
        for reset in &delta.resets {
            self.apply_reset(reset, dot);
        }
        if delta.resets_own
            && let Ok(index) = self.entry_index(&dot.origin)
        {
            self.counters.remove(index);
        }
        if let Some(add) = &delta.add {
            self.apply_increment(add, dot, stamp);
        }
        if let Some(payload) = &delta.put {
            self.insert(Sibling { dot, stamp, payload: payload.clone() });
        }
    }

    /// Joins a reset as its issuer observed it; an entry of another generation ignores it.
    pub fn apply_reset(&mut self, reset: &CounterReset, dot: Dot) {
        if let Ok(index) = self.entry_index(&reset.origin) {
            let entry = &mut self.counters[index];
            if entry.generation == reset.generation {
                entry.reset(reset.last, reset.sum, dot);
            }
        }
    }

    fn apply_increment(&mut self, add: &Increment, dot: Dot, stamp: Stamp) {
        let opened = CounterEntry {
            origin: dot.origin,
            generation: add.generation,
            born: stamp.hlc,
            last: dot.seq,
            stamp,
            sum: add.sum,
            reset_last: 0,
            reset_sum: 0,
            reset_dot: None,
        };
        match self.entry_index(&dot.origin) {
            Err(index) => self.counters.insert(index, opened),
            Ok(index) => {
                let entry = &mut self.counters[index];
                if add.generation > entry.generation {
                    *entry = opened;
                } else if add.generation == entry.generation && dot.seq > entry.last {
                    entry.last = dot.seq;
                    entry.stamp = stamp;
                    entry.sum = add.sum;
                }
            }
        }
    }

    /// Removes exactly the dots in `context`, as a bulk clear does (MODEL M3). The counters of others are
    /// reset by the clear's list; the issuer's own entry goes at once.
    pub fn clear(&mut self, context: &VersionVector, issuer: &Origin) {
        self.siblings.retain(|sibling| !context.contains(&sibling.dot));
        self.counters.retain(|entry| entry.origin != *issuer || entry.last > context.get(issuer));
    }

    fn insert(&mut self, sibling: Sibling) {
        let at = self.siblings.partition_point(|other| other.rank() > sibling.rank());
        if self.siblings.get(at).is_none_or(|other| other.dot != sibling.dot) {
            self.siblings.insert(at, sibling);
        }
    }

    // ---- state -----------------------------------------------------------------------------------------

    /// Merges the states of one row at two nodes. A dot stays if both have it, or if the one that lacks
    /// it has not seen it (MODEL M6). Associative, commutative and idempotent over states of causally
    /// consistent nodes.
    pub fn join(
        &self,
        my_vector: &VersionVector,
        theirs: &Row,
        their_vector: &VersionVector,
    ) -> Row {
        let mut joined = Row::default();
        for sibling in &self.siblings {
            let there = theirs.siblings.iter().any(|other| other.dot == sibling.dot);
            if there || !their_vector.contains(&sibling.dot) {
                joined.insert(sibling.clone());
            }
        }
        for sibling in &theirs.siblings {
            if !my_vector.contains(&sibling.dot) {
                joined.insert(sibling.clone());
            }
        }
        for entry in &self.counters {
            match theirs.entry(&entry.origin) {
                Some(other) => joined.counters.push(join_entries(entry, other)),
                None if entry.last > their_vector.get(&entry.origin) => {
                    joined.counters.push(entry.clone());
                }
                None => {}
            }
        }
        for other in &theirs.counters {
            if self.entry(&other.origin).is_none() && other.last > my_vector.get(&other.origin) {
                joined.counters.push(other.clone());
            }
        }
        joined.counters.sort_by_key(|entry| entry.origin);
        joined
    }

    /// Appends what the digest sees: dots, payloads and live entries; no residue, nothing that a node
    /// may drop at its own time. False if there is nothing to see.
    pub fn canonical(&self, out: &mut Writer) -> bool {
        if !self.is_live() {
            return false;
        }
        out.varint(self.siblings.len() as u64);
        for sibling in &self.siblings {
            out.dot(&sibling.dot);
            out.payload(&sibling.payload);
        }
        for entry in self.counters.iter().filter(|entry| entry.is_live()) {
            out.origin(&entry.origin);
            out.varint(entry.generation);
            out.varint(entry.last);
            out.varint_i128(entry.sum);
            out.varint(entry.reset_last);
            out.varint_i128(entry.reset_sum);
        }
        true
    }

    /// A row that is one write.
    pub(crate) fn of(write: Sibling) -> Row {
        Row { siblings: SmallVec::from([write]), ..Row::default() }
    }

    /// If the row is one write and nothing else: that.
    pub(crate) fn plain(&self) -> Option<&Sibling> {
        match self.siblings.as_slice() {
            [only] if self.counters.is_empty() => Some(only),
            _ => None,
        }
    }

    /// Appends a row that is one write, so that its payload ends the value. It is read by
    /// [`decode_plain`](Row::decode_plain), and looked at by [`Plain`].
    pub(crate) fn encode_plain(sibling: &Sibling, out: &mut Writer, origins: &mut Origins) {
        out.stamp(sibling.stamp);
        out.varint(origins.intern(&sibling.dot.origin));
        out.varint(sibling.dot.seq);
        out.last(&sibling.payload, LARGE);
    }

    /// Reads what [`encode_plain`](Row::encode_plain) wrote.
    pub(crate) fn decode_plain(
        input: &mut Reader<'_>,
        origins: &Origins,
    ) -> Result<Row, CodecError> {
        let mut row = Row::default();
        let stamp = input.stamp()?;
        let dot = Dot { origin: origins.read(input)?, seq: input.varint()? };
        row.siblings.push(Sibling { dot, stamp, payload: input.kept_rest() });
        Ok(row)
    }

    /// Appends the row with its origins as indexes into `origins`.
    pub fn encode(&self, out: &mut Writer, origins: &mut Origins) {
        out.varint(self.siblings.len() as u64);
        for sibling in &self.siblings {
            out.varint(origins.intern(&sibling.dot.origin));
            out.varint(sibling.dot.seq);
            out.stamp(sibling.stamp);
            out.payload(&sibling.payload);
        }
        out.varint(self.counters.len() as u64);
        for entry in &self.counters {
            out.varint(origins.intern(&entry.origin));
            out.varint(entry.generation);
            out.u64(entry.born.0);
            out.varint(entry.last);
            out.stamp(entry.stamp);
            out.varint_i128(entry.sum);
            out.varint(entry.reset_last);
            if let (true, Some(dot)) = (entry.reset_last > 0, entry.reset_dot) {
                out.varint_i128(entry.reset_sum);
                out.varint(origins.intern(&dot.origin));
                out.varint(dot.seq);
            }
        }
    }

    /// Reads what [`encode`](Row::encode) wrote.
    pub fn decode(input: &mut Reader<'_>, origins: &Origins) -> Result<Row, CodecError> {
        let mut row = Row::default();
        for _ in 0..input.count(11)? {
            let dot = Dot { origin: origins.read(input)?, seq: input.varint()? };
            let stamp = input.stamp()?;
            row.insert(Sibling { dot, stamp, payload: input.kept()? });
        }
        for _ in 0..input.count(21)? {
            let mut entry = CounterEntry {
                origin: origins.read(input)?,
                generation: input.varint()?,
                born: input.hlc()?,
                last: input.varint()?,
                stamp: input.stamp()?,
                sum: input.varint_i128()?,
                reset_last: input.varint()?,
                reset_sum: 0,
                reset_dot: None,
            };
            if entry.generation == 0 || entry.generation > entry.last {
                return Err(CodecError::Invalid("counter entries"));
            }
            if entry.reset_last > 0 {
                entry.reset_sum = input.varint_i128()?;
                entry.reset_dot = Some(Dot { origin: origins.read(input)?, seq: input.varint()? });
            }
            row.counters.push(entry);
        }
        if !row.counters.is_sorted_by(|a, b| a.origin < b.origin) {
            return Err(CodecError::Invalid("counter entries"));
        }
        Ok(row)
    }
}

/// A row that is one write, looked at where it lies.
#[derive(Clone)]
pub(crate) struct Plain<'p> {
    written: Millis,
    /// The dot and the payload.
    rest: Reader<'p>,
}

impl<'p> Plain<'p> {
    /// What [`Row::encode_plain`] wrote.
    #[inline]
    pub(crate) fn read(mut input: Reader<'p>) -> Result<Plain<'p>, CodecError> {
        Ok(Plain { written: input.stamp()?.written, rest: input })
    }

    /// Whether it was written after `hidden`; 0 hides nothing.
    #[inline]
    pub(crate) fn is_visible(&self, hidden: Millis) -> bool {
        self.written > hidden || hidden == Millis(0)
    }

    /// What clients read of it, of what was written after `hidden`; 0 hides nothing. Every type reads a row
    /// that is one write as its payload.
    #[inline]
    pub(crate) fn shown(mut self, hidden: Millis) -> Option<Shown<'p>> {
        if !self.is_visible(hidden) {
            return None;
        }
        self.rest.varint().and_then(|_| self.rest.varint()).ok()?;
        Some(Shown::Packed(self.rest.rest()))
    }
}

fn saturate(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

/// Joins two states of one origin's entry: the larger generation replaces; within one, the sum goes with
/// the newer increment and the reset with the one that observed more. By dots, never by value.
fn join_entries(mine: &CounterEntry, theirs: &CounterEntry) -> CounterEntry {
    if mine.generation != theirs.generation {
        return if mine.generation > theirs.generation { mine } else { theirs }.clone();
    }
    let (newer, older) = if mine.last >= theirs.last { (mine, theirs) } else { (theirs, mine) };
    let mut joined = newer.clone();
    if let Some(dot) = older.reset_dot {
        joined.reset(older.reset_last, older.reset_sum, dot);
    }
    joined
}

/// Short numbers for origins, so that a stored dot takes 2 or 3 bytes and not 20. The table is local to
/// a node or to one message; it never decides anything.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    list: Vec<Origin>,
}

impl Origins {
    /// The number of an origin, a new one if it has none yet. Cost: linear in the origins of live rows,
    /// which are few; the newest are found first.
    pub fn intern(&mut self, origin: &Origin) -> u64 {
        match self.list.iter().rposition(|known| known == origin) {
            Some(index) => index as u64,
            None => {
                self.list.push(*origin);
                self.list.len() as u64 - 1
            }
        }
    }

    /// Takes the next number for an origin read from storage.
    pub fn push(&mut self, origin: Origin) {
        self.list.push(origin);
    }

    /// All origins in the order of their numbers.
    pub fn list(&self) -> &[Origin] {
        &self.list
    }

    fn read(&self, input: &mut Reader<'_>) -> Result<Origin, CodecError> {
        self.get(input.varint()?)
    }

    /// The origin of a number.
    pub(crate) fn get(&self, index: u64) -> Result<Origin, CodecError> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.list.get(index))
            .copied()
            .ok_or(CodecError::Invalid("origin"))
    }
}
