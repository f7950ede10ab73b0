//! Commits: what travels between nodes and lies in the log.
//!
//! A commit is the net effect of what the clients of one origin did in one tick: it owns a run of seqs, one
//! for each effect; effect `i` has the dot `first + i`. What is replicated is effects, never commands: an
//! effect names a row, what it supersedes there, and what it leaves there.
//!
//! Inside the engine a commit is a [`Commit`]; on the wire and in the log it is an [`EncodedCommit`],
//! whose body replication carries without looking into it.

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use crate::causal::{Dot, Hlc, Origin, Stamp, VersionVector};
use crate::codec::{CodecError, Reader, Writer};
use crate::name::{RowKey, Scope, Slot};

/// The first format, which has no lead: still written where there is none, so that peers of the version
/// before read it.
const PLAIN: u8 = 1;
/// The stamp is followed by the writer's lead.
const LED: u8 = 2;

/// Effects in one commit at most: bounds what one commit can make other nodes do in one step.
pub const MAX_EFFECTS: usize = 1 << 24;

/// One commit: the effects that one origin makes visible together, everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Who wrote it.
    pub origin: Origin,
    /// The seq of the first effect.
    pub first: u64,
    /// When it was written; every sibling and increment of the commit bears this stamp.
    pub hlc: Hlc,
    /// How far that was ahead of the writer's wall clock, in ms.
    pub lead: u64,
    /// Effects in the order of their dots; never empty.
    pub effects: Vec<Effect>,
}

impl Commit {
    /// The dot of effect `index`.
    pub fn dot(&self, index: usize) -> Dot {
        Dot { origin: self.origin, seq: self.first + index as u64 }
    }

    /// The seq of the last effect.
    pub fn last(&self) -> u64 {
        self.first + self.effects.len() as u64 - 1
    }

    /// When it was written, by both clocks.
    pub fn stamp(&self) -> Stamp {
        Stamp::with_lead(self.hlc, self.lead)
    }
}

/// One effect, under one dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Changes one row.
    Row(RowEffect),
    /// Removes all that the issuer had seen in a scope.
    Clear(Clear),
}

/// What one dot does to one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowEffect {
    /// The row.
    pub row: RowKey,
    /// What becomes of it.
    pub delta: Delta,
}

/// How a row changes under one dot: all of it is optional, a delta of nothing is legal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Dots of the siblings that are superseded.
    pub replaces: SmallVec<[Dot; 1]>,
    /// Counter entries of other origins that are reset, as observed.
    pub resets: Vec<CounterReset>,
    /// Whether the issuer's own counter entry is dropped; everyone does so at once (MODEL M2).
    pub resets_own: bool,
    /// The payload of the sibling that this dot leaves in the row.
    pub put: Option<Bytes>,
    /// The issuer's own counter entry after this effect.
    pub add: Option<Increment>,
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_nothing(&self) -> bool {
        *self == Delta::default()
    }
}

/// A counter entry as the issuer of a reset observed it (MODEL M2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterReset {
    /// Whose entry.
    pub origin: Origin,
    /// The seq of the dot that opened the generation.
    pub generation: u64,
    /// The seq of the newest increment observed.
    pub last: u64,
    /// The sum of the generation up to that increment.
    pub sum: i128,
}

/// The issuer's counter entry after an increment; its newest dot is the effect's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Increment {
    /// The seq of the dot that opened the generation.
    pub generation: u64,
    /// The sum of the generation up to and including this increment.
    pub sum: i128,
}

/// A bulk removal (`FLUSHDB`, `DEL` of a big key): O(1) on the wire but for the counters in its scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clear {
    /// Which rows.
    pub scope: Scope,
    /// The issuer's vector *before* this commit: exactly the dots in it are removed (MODEL M3).
    pub context: VersionVector,
    /// Counter entries of other origins in the scope, as observed: a context alone cannot tell how much
    /// of a running sum it covers.
    pub resets: Vec<(RowKey, CounterReset)>,
}

/// A commit as it travels and lies in the log: identity in the open, effects as opaque bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedCommit {
    /// Who wrote it.
    pub origin: Origin,
    /// The seq of the first effect.
    pub first: u64,
    /// The seq of the last effect.
    pub last: u64,
    /// Format number, stamp and effects.
    pub body: Bytes,
}

impl EncodedCommit {
    /// The dot of the first effect.
    pub fn first_dot(&self) -> Dot {
        Dot { origin: self.origin, seq: self.first }
    }
}

impl EncodedCommit {
    /// When it was written. Reads the head of the body alone.
    pub fn hlc(&self) -> Result<Hlc, CodecError> {
        let (stamp, _) = read_head(&self.body)?;
        Ok(stamp.hlc)
    }

    /// The commit as peers of the version before read it: without its lead. They judge deadlines by the
    /// hybrid clock.
    pub fn downgrade(&self) -> EncodedCommit {
        let Ok((stamp, rest)) = read_head(&self.body) else { return self.clone() };
        if stamp.lead() == 0 {
            return self.clone();
        }
        let mut body = Writer::over(Vec::with_capacity(self.body.len()));
        body.u8(PLAIN);
        body.u64(stamp.hlc.0);
        body.raw(rest.rest());
        EncodedCommit { body: body.finish(), ..*self }
    }

    /// Whether it can be decoded, whatever it means.
    pub fn is_well_formed(&self) -> bool {
        Commit::decode(self).is_ok()
    }
}

/// One entry of a node's delivery log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// A commit that was applied here.
    Commit(EncodedCommit),
    /// "Before this, all of that": left by a state transfer and by trimming (MODEL M5).
    Barrier(VersionVector),
}

impl LogEntry {
    /// Adds the entry's dots to a vector; true if it grew.
    pub fn advance(&self, vector: &mut VersionVector) -> bool {
        match self {
            LogEntry::Commit(commit) => vector.advance(commit.origin, commit.last),
            LogEntry::Barrier(barrier) => vector.join(barrier),
        }
    }
}

// ---- encoding --------------------------------------------------------------------------------------

/// Bits of an effect's first byte.
mod tag {
    pub const ROW: u8 = 1;
    pub const SAME_KEY: u8 = 2;
    pub const REPLACES: u8 = 4;
    pub const RESETS: u8 = 8;
    pub const RESETS_OWN: u8 = 16;
    pub const PUT: u8 = 32;
    pub const ADD: u8 = 64;
    pub const KNOWN: u8 = 127;
}

/// Origins that a body names, each written once. Index 0 is the commit's own.
struct Names {
    origins: SmallVec<[Origin; 2]>,
    /// Their numbers, once they are many: a clear names all that its issuer knows.
    numbers: BTreeMap<Origin, u64>,
}

/// As many names are looked through.
const LOOKED_THROUGH: usize = 16;

impl Names {
    fn of(origin: Origin) -> Names {
        Names { origins: smallvec![origin], numbers: BTreeMap::new() }
    }

    fn index(&mut self, origin: &Origin) -> u64 {
        let known = match self.numbers.is_empty() {
            true => self.origins.iter().position(|known| known == origin).map(|at| at as u64),
            false => self.numbers.get(origin).copied(),
        };
        known.unwrap_or_else(|| {
            self.origins.push(*origin);
            let from = if self.numbers.is_empty() { 0 } else { self.origins.len() - 1 };
            if self.origins.len() > LOOKED_THROUGH {
                let new = self.origins.iter().enumerate().skip(from);
                self.numbers.extend(new.map(|(at, origin)| (*origin, at as u64)));
            }
            self.origins.len() as u64 - 1
        })
    }
}

/// Reads the stamp of a body of either format.
fn read_head(body: &Bytes) -> Result<(Stamp, Reader<'_>), CodecError> {
    let mut input = Reader::over(body);
    let format = input.u8()?;
    let hlc = input.hlc()?;
    let lead = match format {
        PLAIN => 0,
        LED => input.varint()?,
        other => return Err(CodecError::Format(other)),
    };
    if lead > hlc.millis().0 {
        return Err(CodecError::Invalid("lead"));
    }
    Ok((Stamp::with_lead(hlc, lead), input))
}

/// Encodes a commit, effect by effect.
pub(crate) struct Encoder {
    first: u64,
    /// The seq of the next effect.
    next: u64,
    stamp: Stamp,
    names: Names,
    /// Where the effects begin, if no foreign origins are named.
    head: usize,
    out: Writer,
}

/// How long the head is, about, if no foreign origins are named.
const HEAD: usize = 20;

/// The beginning of a body, with room for effects of about that size.
fn head(stamp: Stamp, foreign: &[Origin], size: usize) -> Writer {
    let mut out = Writer::over(Vec::with_capacity(HEAD + foreign.len() * Origin::LEN + size));
    out.u8(if stamp.lead() == 0 { PLAIN } else { LED });
    out.u64(stamp.hlc.0);
    if stamp.lead() > 0 {
        out.varint(stamp.lead());
    }
    out.varint(foreign.len() as u64);
    foreign.iter().for_each(|origin| out.origin(origin));
    out
}

impl Encoder {
    /// A commit without effects; `size` is about how long they will be.
    pub(crate) fn new(origin: Origin, first: u64, stamp: Stamp, size: usize) -> Encoder {
        let names = Names::of(origin);
        let out = head(stamp, &[], size);
        Encoder { first, next: first, stamp, names, head: out.len(), out }
    }

    /// The dot of the next effect.
    pub(crate) fn dot(&self) -> Dot {
        Dot { origin: self.names.origins[0], seq: self.next }
    }

    /// Adds an effect on a row; `previous` is the row of the last such effect.
    pub(crate) fn row(&mut self, row: &RowKey, delta: &Delta, previous: Option<&RowKey>) {
        encode_row_effect(row, delta, previous, self.first, &mut self.names, &mut self.out);
        self.next += 1;
    }

    /// Adds a clear.
    pub(crate) fn clear(&mut self, clear: &Clear) {
        encode_clear(clear, &mut self.names, &mut self.out);
        self.next += 1;
    }

    /// The commit. It must have an effect.
    pub(crate) fn finish(self) -> EncodedCommit {
        let Encoder { first, next, stamp, names, head: begin, mut out } = self;
        if let [_, foreign @ ..] = names.origins.as_slice()
            && !foreign.is_empty()
        {
            // The effects named foreign origins: their table comes before them.
            let effects = out.into_vec();
            out = head(stamp, foreign, effects.len());
            out.raw(&effects[begin..]);
        }
        EncodedCommit { origin: names.origins[0], first, last: next - 1, body: out.finish() }
    }
}

impl Commit {
    /// Encodes the commit. Cost: its size.
    pub fn encode(&self) -> EncodedCommit {
        let mut encoder = Encoder::new(self.origin, self.first, self.stamp(), 0);
        let mut previous = None;
        for effect in &self.effects {
            match effect {
                Effect::Row(RowEffect { row, delta }) => {
                    encoder.row(row, delta, previous);
                    previous = Some(row);
                }
                Effect::Clear(clear) => encoder.clear(clear),
            }
        }
        encoder.finish()
    }

    /// Decodes and validates a commit. Memory: at most a small multiple of the body's size.
    pub fn decode(encoded: &EncodedCommit) -> Result<Commit, CodecError> {
        let count = encoded
            .last
            .checked_sub(encoded.first)
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n < MAX_EFFECTS && encoded.first > 0)
            .ok_or(CodecError::Invalid("run of seqs"))?
            + 1;
        let (stamp, mut input) = read_head(&encoded.body)?;
        let foreign = input.count(Origin::LEN)?;
        let mut names = vec![encoded.origin];
        for _ in 0..foreign {
            names.push(input.origin()?);
        }
        if count > input.rest().len() {
            return Err(CodecError::Truncated);
        }
        let mut effects: Vec<Effect> = Vec::with_capacity(count);
        let mut last_row = None;
        for index in 0..count {
            let previous = last_row.and_then(|at: usize| match effects.get(at) {
                Some(Effect::Row(effect)) => Some(&effect.row),
                _ => None,
            });
            let effect = decode_effect(&mut input, previous, encoded.first, &names)?;
            if matches!(effect, Effect::Row(_)) {
                last_row = Some(index);
            }
            effects.push(effect);
        }
        input.end()?;
        let (origin, first) = (encoded.origin, encoded.first);
        Ok(Commit { origin, first, hlc: stamp.hlc, lead: stamp.lead(), effects })
    }
}

fn encode_dot(dot: &Dot, first: u64, names: &mut Names, out: &mut Writer) {
    let index = names.index(&dot.origin);
    out.varint(index);
    // Own dots are written as distances: what a writer supersedes is often its own recent write.
    out.varint(if index == 0 { first.wrapping_sub(dot.seq) } else { dot.seq });
}

fn decode_dot(input: &mut Reader<'_>, first: u64, names: &[Origin]) -> Result<Dot, CodecError> {
    let index = input.varint()?;
    let number = input.varint()?;
    let origin = usize::try_from(index)
        .ok()
        .and_then(|i| names.get(i))
        .ok_or(CodecError::Invalid("origin"))?;
    let seq = if index == 0 { first.wrapping_sub(number) } else { number };
    if seq == 0 {
        return Err(CodecError::Invalid("dot"));
    }
    Ok(Dot { origin: *origin, seq })
}

fn encode_row_key(row: &RowKey, same_key: bool, out: &mut Writer) {
    if !same_key {
        out.varint(u64::from(row.db));
        out.bytes(&row.key);
    }
    out.u8(row.slot.0);
    out.bytes(&row.subkey);
}

fn decode_row_key(input: &mut Reader<'_>, same: Option<&RowKey>) -> Result<RowKey, CodecError> {
    let (db, key) = match same {
        Some(row) => (row.db, row.key.clone()),
        None => {
            let db = u16::try_from(input.varint()?).map_err(|_| CodecError::Invalid("db"))?;
            (db, Bytes::copy_from_slice(input.bytes()?))
        }
    };
    let slot = Slot(input.u8()?);
    Ok(RowKey { db, key, slot, subkey: Bytes::copy_from_slice(input.bytes()?) })
}

fn encode_reset(reset: &CounterReset, names: &mut Names, out: &mut Writer) {
    out.varint(names.index(&reset.origin));
    out.varint(reset.generation);
    out.varint(reset.last - reset.generation);
    out.varint_i128(reset.sum);
}

fn decode_reset(input: &mut Reader<'_>, names: &[Origin]) -> Result<CounterReset, CodecError> {
    let origin = usize::try_from(input.varint()?)
        .ok()
        .and_then(|i| names.get(i))
        .ok_or(CodecError::Invalid("origin"))?;
    let generation = input.varint()?;
    let last = generation.checked_add(input.varint()?).ok_or(CodecError::Invalid("reset"))?;
    Ok(CounterReset { origin: *origin, generation, last, sum: input.varint_i128()? })
}

fn encode_row_effect(
    row: &RowKey,
    delta: &Delta,
    previous: Option<&RowKey>,
    first: u64,
    names: &mut Names,
    out: &mut Writer,
) {
    let same_key = previous.is_some_and(|last| last.db == row.db && last.key == row.key);
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.u8(tag::ROW
        | flag(same_key, tag::SAME_KEY)
        | flag(!delta.replaces.is_empty(), tag::REPLACES)
        | flag(!delta.resets.is_empty(), tag::RESETS)
        | flag(delta.resets_own, tag::RESETS_OWN)
        | flag(delta.put.is_some(), tag::PUT)
        | flag(delta.add.is_some(), tag::ADD));
    encode_row_key(row, same_key, out);
    if !delta.replaces.is_empty() {
        out.varint(delta.replaces.len() as u64);
        for dot in &delta.replaces {
            encode_dot(dot, first, names, out);
        }
    }
    if !delta.resets.is_empty() {
        out.varint(delta.resets.len() as u64);
        for reset in &delta.resets {
            encode_reset(reset, names, out);
        }
    }
    if let Some(payload) = &delta.put {
        out.bytes(payload);
    }
    if let Some(add) = &delta.add {
        out.varint(add.generation);
        out.varint_i128(add.sum);
    }
}

fn encode_clear(clear: &Clear, names: &mut Names, out: &mut Writer) {
    out.u8(0);
    match &clear.scope {
        Scope::Db(db) => {
            out.u8(0);
            out.varint(u64::from(*db));
        }
        Scope::Key(db, key) => {
            out.u8(1);
            out.varint(u64::from(*db));
            out.bytes(key);
        }
    }
    out.varint(clear.context.len() as u64);
    for (origin, seq) in clear.context.iter() {
        out.varint(names.index(origin));
        out.varint(seq);
    }
    out.varint(clear.resets.len() as u64);
    for (row, reset) in &clear.resets {
        encode_row_key(row, false, out);
        encode_reset(reset, names, out);
    }
}

fn decode_effect(
    input: &mut Reader<'_>,
    previous: Option<&RowKey>,
    first: u64,
    names: &[Origin],
) -> Result<Effect, CodecError> {
    let tag = input.u8()?;
    if tag & !tag::KNOWN != 0 {
        return Err(CodecError::Invalid("effect"));
    }
    if tag & tag::ROW == 0 {
        return decode_clear(input, names).map(Effect::Clear);
    }
    let same = match (tag & tag::SAME_KEY != 0, previous) {
        (true, None) => return Err(CodecError::Invalid("key")),
        (true, previous) => previous,
        (false, _) => None,
    };
    let row = decode_row_key(input, same)?;
    let mut delta = Delta::default();
    if tag & tag::REPLACES != 0 {
        for _ in 0..input.count(2)? {
            delta.replaces.push(decode_dot(input, first, names)?);
        }
    }
    if tag & tag::RESETS != 0 {
        for _ in 0..input.count(4)? {
            delta.resets.push(decode_reset(input, names)?);
        }
    }
    delta.resets_own = tag & tag::RESETS_OWN != 0;
    if tag & tag::PUT != 0 {
        delta.put = Some(input.kept()?);
    }
    if tag & tag::ADD != 0 {
        delta.add = Some(Increment { generation: input.varint()?, sum: input.varint_i128()? });
    }
    Ok(Effect::Row(RowEffect { row, delta }))
}

fn decode_clear(input: &mut Reader<'_>, names: &[Origin]) -> Result<Clear, CodecError> {
    let kind = input.u8()?;
    let db = u16::try_from(input.varint()?).map_err(|_| CodecError::Invalid("db"))?;
    let scope = match kind {
        0 => Scope::Db(db),
        1 => Scope::Key(db, Bytes::copy_from_slice(input.bytes()?)),
        _ => return Err(CodecError::Invalid("scope")),
    };
    let mut context = VersionVector::new();
    for _ in 0..input.count(2)? {
        let index = usize::try_from(input.varint()?).map_err(|_| CodecError::Invalid("origin"))?;
        let origin = names.get(index).ok_or(CodecError::Invalid("origin"))?;
        context.advance(*origin, input.varint()?);
    }
    let mut resets = Vec::new();
    for _ in 0..input.count(8)? {
        resets.push((decode_row_key(input, None)?, decode_reset(input, names)?));
    }
    Ok(Clear { scope, context, resets })
}

impl LogEntry {
    /// About how long the encoding is.
    pub(crate) fn size_hint(&self) -> usize {
        match self {
            LogEntry::Commit(commit) => Writer::copied(commit.body.len()) + 48,
            LogEntry::Barrier(vector) => (vector.len() + 1) * 32,
        }
    }

    /// Appends the entry with its origins in full.
    pub fn encode(&self, out: &mut Writer) {
        match self {
            LogEntry::Commit(commit) => {
                out.u8(0);
                out.origin(&commit.origin);
                out.varint(commit.first);
                out.varint(commit.last - commit.first);
                out.payload(&commit.body);
            }
            LogEntry::Barrier(vector) => {
                out.u8(1);
                vector.encode(out);
            }
        }
    }

    /// Reads what [`encode`](LogEntry::encode) wrote.
    pub fn decode(input: &mut Reader<'_>) -> Result<LogEntry, CodecError> {
        match input.u8()? {
            0 => {
                let origin = input.origin()?;
                let first = input.varint()?;
                let more = input.varint()?;
                let last = first.checked_add(more).ok_or(CodecError::Invalid("run of seqs"))?;
                let body = input.kept()?;
                Ok(LogEntry::Commit(EncodedCommit { origin, first, last, body }))
            }
            1 => Ok(LogEntry::Barrier(VersionVector::decode(input)?)),
            _ => Err(CodecError::Invalid("log entry")),
        }
    }
}
