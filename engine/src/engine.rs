//! The engine of one node: identity, vector, clock, log and keyspace, moved together.
//!
//! All change happens in a [`Tick`]: commands run as [`Txn`]s, commits from elsewhere are applied, states
//! are joined, deadlines pass. [`Tick::seal`] puts everything that they changed (rows, records, derived
//! rows, log, vector, digest) into one atomic batch. A tick that cannot be written has not happened.

use bytes::Bytes;

use crate::causal::{Dot, Hlc, HlcClock, LogPosition, Millis, NodeId, Origin, VersionVector};
use crate::codec::{CodecError, Reader, Writer};
use crate::commit::{Clear, Commit, Effect, EncodedCommit, LogEntry, Scope};
use crate::log::{self, Log, LogReader};
use crate::row::Row;
use crate::space::{Mark, Space};
use crate::store::{Batch, Family, Read, Store, StoreError, keys};
use crate::transfer::Staged;
use crate::txn::{Touched, Txn};

const FORMAT: u8 = 1;

/// After an unclean stop, stamps of this long may have been given and lost: what `everysec` can lose.
const LOST_STAMPS: Millis = Millis(2_000);

/// What can be tuned.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Bytes of decoded rows kept in memory between ticks.
    pub cache_bytes: usize,
    /// Bytes of log kept for peers that were away.
    pub log_max_bytes: u64,
    /// Faults to show, for the simulator.
    #[cfg(feature = "planted")]
    pub planted: crate::planted::Planted,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            cache_bytes: 256 << 20,
            log_max_bytes: 256 << 20,
            #[cfg(feature = "planted")]
            planted: crate::planted::Planted::None,
        }
    }
}

/// Random numbers for a start, drawn by the caller.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// Identity of the node, if the store has none yet.
    pub node: NodeId,
    /// Nonce of the new incarnation; also seeds the cache's hash.
    pub nonce: u64,
}

/// Why a store could not be opened. It was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Vector and log do not tell the same story (law 2): what is missing would be read by all peers as
    /// removed, so the node must not start.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// Why a commit from elsewhere was not applied. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It does not follow what was applied of its origin.
    #[error("commit {0} does not follow the vector")]
    Gap(Dot),
    /// It is not a commit that this version can apply.
    #[error("invalid commit: {0}")]
    Invalid(#[from] CodecError),
    /// The store failed: the whole tick will.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a tick made visible.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The position of the last entry.
    pub position: LogPosition,
    /// The vector after it.
    pub vector: VersionVector,
    /// The entries at positions `position - entries.len() + 1 ..= position`.
    pub entries: Vec<LogEntry>,
}

/// The record that moves with every tick.
pub(crate) struct State {
    pub(crate) vector: VersionVector,
    position: LogPosition,
    pub(crate) clock: Hlc,
    digest: u128,
    counts: Vec<u64>,
}

impl State {
    pub(crate) fn load<R: Read>(store: &R) -> Result<Option<State>, StoreError> {
        let Some(record) = store.get(Family::System, keys::STATE)? else { return Ok(None) };
        let decode = || {
            let mut input = Reader::with_format(&record, FORMAT)?;
            let position = LogPosition(input.varint()?);
            let clock = input.hlc()?;
            let digest = u128::from(input.u64()?) << 64 | u128::from(input.u64()?);
            let mut counts = Vec::new();
            for _ in 0..input.count(1)? {
                counts.push(input.varint()?);
            }
            let vector = VersionVector::decode(&mut input)?;
            input.end()?;
            Ok(Some(State { vector, position, clock, digest, counts }))
        };
        decode().map_err(|error| StoreError::corrupt("state record", error))
    }

    fn encode(
        position: LogPosition,
        clock: Hlc,
        digest: u128,
        counts: &[u64],
        vector: &VersionVector,
    ) -> Writer {
        let mut out = Writer::with_format(FORMAT);
        out.varint(position.0);
        out.u64(clock.0);
        out.u64((digest >> 64) as u64);
        out.u64(digest as u64);
        out.varint(counts.len() as u64);
        counts.iter().for_each(|count| out.varint(*count));
        vector.encode(&mut out);
        out
    }
}

/// The data of one node over a store.
pub struct Engine<S: Store> {
    pub(crate) store: S,
    pub(crate) space: Space<S>,
    pub(crate) origin: Origin,
    pub(crate) vector: VersionVector,
    pub(crate) clock: HlcClock,
    #[cfg(feature = "planted")]
    pub(crate) config: EngineConfig,
    /// Kept between transactions for its memory.
    pub(crate) touched: Touched,
    log: Log,
}

impl<S: Store> Engine<S> {
    /// Opens a store: checks that vector and log agree, then writes and syncs a new incarnation, so that
    /// no dot is ever given twice (law 3). Cost: reads the log through.
    pub fn open(
        store: S,
        config: EngineConfig,
        fresh: Fresh,
        now: Millis,
    ) -> Result<Engine<S>, OpenError> {
        let identity = load_identity(&store)?;
        let state = State::load(&store)?;
        let (log, logged) = Log::open(&store, config.log_max_bytes)?;
        let state = match (identity, state) {
            (Some(_), Some(state)) => state,
            (None, None) if log.position() == LogPosition(0) && is_blank(&store)? => State {
                vector: VersionVector::new(),
                position: LogPosition(0),
                clock: Hlc(0),
                digest: 0,
                counts: Vec::new(),
            },
            _ => return Err(OpenError::Damaged("identity, state and log do not belong".into())),
        };
        if state.position != log.position() || state.vector != logged {
            return Err(OpenError::Damaged(format!(
                "the rows are at log position {}, the log ends at {}",
                state.position.0,
                log.position().0
            )));
        }
        // A clock that was set back must not stamp below what was stamped and lost.
        let clock = match Hlc::at(now) > state.clock || state.clock == Hlc(0) {
            true => state.clock,
            false => Hlc::at(Millis(state.clock.millis().0 + LOST_STAMPS.0)),
        };
        let origin = Origin {
            node: identity.map_or(fresh.node, |old| old.node),
            incarnation: identity.map_or(0, |old| old.incarnation) + 1,
            nonce: fresh.nonce,
        };
        #[cfg(feature = "planted")]
        let origin = config.planted.reopened(identity, origin);
        let mut batch = store.batch();
        batch.put(Family::System, keys::IDENTITY, &origin.to_bytes());
        let record =
            State::encode(state.position, clock, state.digest, &state.counts, &state.vector);
        batch.put(Family::System, keys::STATE, record.as_slice());
        store.write(batch, true)?;
        let space = Space::open(
            store.clone(),
            state.digest,
            state.counts,
            config.cache_bytes,
            fresh.nonce,
        )?;
        #[cfg(feature = "planted")]
        let space = space.breaking(config.planted);
        Ok(Engine {
            space,
            origin,
            vector: state.vector,
            clock: HlcClock::resume(clock),
            #[cfg(feature = "planted")]
            config,
            touched: Touched::default(),
            log,
            store,
        })
    }

    /// Begins a tick at a wall-clock time.
    pub fn tick(&mut self, now: Millis) -> Tick<'_, S> {
        let mark =
            Before { space: self.space.mark(), vector: self.vector.clone(), clock: self.clock };
        // Deadlines are judged by the later of wall clock and stamps: what was written after a deadline
        // was seen to pass cannot find it not passed.
        self.space.set_now(Hlc::at(now).max(self.clock.last()));
        Tick { engine: self, now, before: Some(mark), entries: Vec::new(), failed: None }
    }

    /// Everything that was applied here.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// Under which name this node writes.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The position of the log's last entry.
    pub fn position(&self) -> LogPosition {
        self.log.position()
    }

    /// Bytes of log kept.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Bytes of decoded rows in memory.
    pub fn cache_bytes(&self) -> usize {
        self.space.cache_bytes()
    }

    /// The largest stamp made or seen.
    pub fn clock(&self) -> Hlc {
        self.clock.last()
    }

    /// A fingerprint of the whole state, rows and vector: equal exactly when states are, but for
    /// collisions of 128 bits. O(origins).
    pub fn digest(&self) -> u128 {
        let mut out = Writer::new();
        self.vector.encode(&mut out);
        out.u64((self.space.digest() >> 64) as u64);
        out.u64(self.space.digest() as u64);
        xxhash_rust::xxh3::xxh3_128(out.as_slice())
    }

    /// The store underneath.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// A reader of the log for any thread.
    pub fn log(&self) -> LogReader<S> {
        self.log.reader(&self.store)
    }

    /// The earliest deadline: the latest time at which the next tick should be.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.space.next_deadline()
    }

    /// Whether to list changed keys for [`Tick::take_changed`].
    pub fn track_changes(&mut self, on: bool) {
        self.space.track_changes(on);
    }

    /// Makes all sealed ticks durable. After an error the process has to end.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }

    /// Makes everything durable and lets go of the store.
    pub fn close(self) -> Result<(), StoreError> {
        self.store.sync()
    }

    /// Checks everything that is kept against what it is derived from: digest, counts and views. Cost: all
    /// rows. For tests and repair tools; must be called between ticks.
    pub fn verify(&mut self) -> Result<(), String> {
        crate::verify::check(self)
    }
}

/// Whether a store has no data: only then may it be taken for a new one.
fn is_blank<R: Read>(store: &R) -> Result<bool, StoreError> {
    let mut blank = true;
    for family in [Family::Keys, Family::Data, Family::Derived] {
        store.scan(family, &[], &[], &mut |_, _| {
            blank = false;
            std::ops::ControlFlow::Break(())
        })?;
    }
    Ok(blank)
}

fn load_identity<R: Read>(store: &R) -> Result<Option<Origin>, StoreError> {
    match store.get(Family::System, keys::IDENTITY)? {
        None => Ok(None),
        Some(bytes) => match <&[u8; Origin::LEN]>::try_from(&bytes[..]) {
            Ok(bytes) => Ok(Some(Origin::from_bytes(bytes))),
            Err(_) => Err(StoreError::Corrupt("identity".into())),
        },
    }
}

/// What a failed tick goes back to.
struct Before {
    space: Mark,
    vector: VersionVector,
    clock: HlcClock,
}

/// One step of a node. Dropped without [`seal`](Tick::seal), it has not happened.
pub struct Tick<'e, S: Store> {
    pub(crate) engine: &'e mut Engine<S>,
    pub(crate) now: Millis,
    before: Option<Before>,
    pub(crate) entries: Vec<LogEntry>,
    /// A store that failed in the middle: rows may be half changed, so the tick cannot be sealed.
    pub(crate) failed: Option<StoreError>,
}

impl<S: Store> Tick<'_, S> {
    /// Begins a command, transaction or script.
    pub fn txn(&mut self) -> Txn<'_, S> {
        Txn::new(self.engine, self.now, &mut self.entries, &mut self.failed)
    }

    /// The engine, to read from.
    pub fn engine(&self) -> &Engine<S> {
        self.engine
    }

    /// Applies a commit from elsewhere, whole. False if it was applied before.
    pub fn apply(&mut self, encoded: &EncodedCommit) -> Result<bool, Refused> {
        let seen = self.engine.vector.get(&encoded.origin);
        if encoded.last <= seen {
            return Ok(false);
        }
        if encoded.first != seen + 1 {
            return Err(Refused::Gap(encoded.first_dot()));
        }
        let commit = Commit::decode(encoded)?;
        commit.validate()?;
        self.guard(|tick| tick.apply_effects(&commit))?;
        #[cfg(feature = "planted")]
        let commit = Commit { hlc: self.engine.config.planted.stamp(commit.hlc), ..commit };
        self.engine.clock.observe(commit.hlc);
        self.engine.vector.advance(commit.origin, commit.last());
        self.entries.push(LogEntry::Commit(encoded.clone()));
        Ok(true)
    }

    /// Remembers a failure of the store, so that the tick cannot be sealed with half a change.
    fn guard<T>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        step(self).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn apply_effects(&mut self, commit: &Commit) -> Result<(), StoreError> {
        // Clears first: their context lies before the commit, so they never touch its own rows.
        for (index, effect) in commit.effects.iter().enumerate() {
            if let Effect::Clear(clear) = effect {
                self.apply_clear(clear, commit.dot(index))?;
            }
        }
        for (index, effect) in commit.effects.iter().enumerate() {
            if let Effect::Row(effect) = effect {
                let mut row = self.engine.space.row(&effect.row)?.clone();
                #[cfg(feature = "planted")]
                let old = row.clone();
                row.apply(effect, commit.dot(index), commit.hlc);
                #[cfg(feature = "planted")]
                self.engine.config.planted.applied(&old, &mut row, effect, commit.dot(index));
                self.engine.space.replace(&effect.row, row)?;
            }
        }
        Ok(())
    }

    fn apply_clear(&mut self, clear: &Clear, dot: Dot) -> Result<(), StoreError> {
        let space = &mut self.engine.space;
        #[cfg(feature = "planted")]
        let planted = space.planted;
        for name in space.rows_in(&clear.scope)? {
            let old = space.row(&name)?;
            let mut row = old.clone();
            row.clear(&clear.context, &dot.origin);
            #[cfg(feature = "planted")]
            planted.cleared(&mut row, &clear.context, dot);
            if row != *old {
                space.replace(&name, row)?;
            }
        }
        for (name, reset) in &clear.resets {
            #[cfg(feature = "planted")]
            if space.planted == crate::planted::Planted::ClearContextOnly {
                break;
            }
            let mut row = space.row(name)?.clone();
            row.apply_reset(reset, dot);
            space.replace(name, row)?;
        }
        Ok(())
    }

    /// Joins a peer's whole state in one step (MODEL M6), and leaves a barrier in the log. Cost: both
    /// states.
    pub fn join(&mut self, staged: &Staged) -> Result<(), StoreError> {
        self.guard(|tick| tick.join_rows(staged))?;
        self.engine.vector.join(&staged.vector);
        self.entries.push(LogEntry::Barrier(self.engine.vector.clone()));
        Ok(())
    }

    fn join_rows(&mut self, staged: &Staged) -> Result<(), StoreError> {
        let Engine { space, vector, clock, .. } = &mut *self.engine;
        clock.observe(staged.clock);
        let nothing = Row::default();
        #[cfg(feature = "planted")]
        let planted = space.planted;
        let mut names = Vec::new();
        for db in space.databases()? {
            names.extend(space.rows_in(&Scope::Db(db))?);
        }
        names.retain(|name| !staged.rows.contains_key(name));
        let absent = names.iter().map(|name| (name, &nothing));
        for (name, theirs) in staged.rows.iter().chain(absent) {
            let mine = space.row(name)?;
            let joined = mine.join(vector, theirs, &staged.vector);
            #[cfg(feature = "planted")]
            let joined = planted.joined(mine, theirs, joined);
            if joined != *mine {
                space.replace(name, joined)?;
            }
        }
        Ok(())
    }

    /// Hides up to `limit` keys whose deadline lies before the tick's time, and removes those whose
    /// deadline this node has set: only it does, so that one deadline costs one removal everywhere.
    /// True if more may be due.
    pub fn expire_due(&mut self, limit: usize) -> Result<bool, StoreError> {
        let now = Hlc::at(self.now).max(self.engine.clock.last());
        let due = self.guard(|tick| tick.engine.space.take_due(now.millis(), limit))?;
        for (db, key) in &due {
            let node = self.engine.origin.node;
            let mine = self.guard(|tick| {
                let place = tick.engine.space.hide_due(*db, key, now)?;
                let header = tick.engine.space.at(place);
                let due = header.hidden != Hlc(0);
                #[cfg(feature = "planted")]
                if tick.engine.config.planted == crate::planted::Planted::ExpiryByLocalClock {
                    return Ok(due);
                }
                Ok(due && header.decision().is_some_and(|it| it.dot.origin.node == node))
            })?;
            if mine {
                let mut txn = self.txn();
                if let Err(crate::txn::OpError::Store(error)) = txn.remove_expired(*db, key) {
                    return Err(error);
                }
                txn.commit();
            }
        }
        Ok(due.len() == limit)
    }

    /// Keys that changed since the last call, if changes are tracked; may repeat.
    pub fn take_changed(&mut self) -> Vec<(u16, Bytes)> {
        self.engine.space.take_changed()
    }

    /// Writes the tick: one batch, durable if `sync`. `None` if nothing became visible to peers. On an
    /// error nothing of the tick has happened, in memory as in the store; after `Unknown` the store may
    /// hold the tick all the same, and has to be opened again before anything else is written.
    pub fn seal(mut self, sync: bool) -> Result<Option<Sealed>, StoreError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let entries = std::mem::take(&mut self.entries);
        let Engine { store, space, vector, clock, log, .. } = &mut *self.engine;
        if entries.is_empty() && !space.is_dirty() {
            self.before = None;
            space.settle();
            return Ok(None);
        }
        let mut batch = store.batch();
        space.write_to(&mut batch);
        #[cfg(feature = "planted")]
        let rows = space.planted.apart(&mut batch, store.batch());
        let position = LogPosition(log.position().0 + entries.len() as u64);
        let mut row_bytes = 0;
        if !entries.is_empty() {
            let row = log::encode_row(&entries);
            row_bytes = row.len();
            batch.put(Family::Log, &keys::log(position), row.as_slice());
        }
        let floor = log.trim(&mut batch);
        let state = State::encode(position, clock.last(), space.digest(), space.counts(), vector);
        batch.put(Family::System, keys::STATE, state.as_slice());
        store.write(batch, sync)?;
        #[cfg(feature = "planted")]
        rows.map_or(Ok(()), |rows| store.write(rows, false))?;
        self.before = None;
        space.settle();
        if let Some(floor) = floor {
            log.trimmed(floor);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        log.appended(&entries, row_bytes, vector);
        Ok(Some(Sealed { position, vector: vector.clone(), entries }))
    }
}

impl<S: Store> Drop for Tick<'_, S> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            #[cfg(feature = "planted")]
            let vector = self.engine.config.planted.undone(before.vector, &self.engine.vector);
            #[cfg(feature = "planted")]
            let before = Before { vector, ..before };
            self.engine.vector = before.vector;
            self.engine.clock = before.clock;
            self.engine.space.revert(before.space);
        }
    }
}
