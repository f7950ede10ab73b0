//! The engine of one node: identity, vector, clock, log and keyspace, moved together.
//!
//! All change happens in ticks (`tick.rs`), which wait for their log row alone. Rows follow behind:
//! [`Engine::freeze`] takes all that the store does not have, with the vector and log position that it is the
//! state of, as one [`Generation`] to be written beside the next ticks. A start applies what the log has
//! beyond that.

use crate::causal::{Hlc, HlcClock, LogPosition, Millis, NodeId, Origin, VersionVector};
use crate::codec::{Reader, Writer};
use crate::commit::{LogEntry, MAX_EFFECTS};
use crate::crdt::{TYPES, Types};
use crate::draft::Draft;
use crate::log::{self, Log, LogReader};
use crate::space::Space;
use crate::store::{Batch, Family, Read, Run, Store, StoreError, has_rows, keys};
use crate::upgrade;

const FORMAT: u8 = 2;
/// The first one says the same; its rows are in another order, which a start changes.
const FIRST_ORDER: u8 = 1;

/// Bytes of log that are applied together at a start.
const REPLAYED_BYTES: usize = 1 << 20;

/// After an unclean stop, stamps of this long may have been given and lost: what `everysec` can lose.
const LOST_STAMPS: Millis = Millis(2_000);

/// Rows that gather before they are written, at most.
const GENERATION_ROWS: usize = 1 << 17;
/// What a row takes in memory, roughly, beside what the log has of it.
const BYTES_PER_ROW: usize = 512;
/// Bytes of log that gather before the rows are written, at most: what a start may have to apply, twice.
const GENERATION_LOG: u64 = 64 << 20;

/// Bytes that one transaction may write at most. A tick ends with the transaction that fills it, and its row
/// in the log has to stay below what a store takes for a value: 4 GiB.
pub const MAX_BYTES: usize = 1 << 30;
/// Steps of one [`Engine::rest`]: some milliseconds.
const RESTED: usize = 8_192;

/// What can be tuned.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Bytes of decoded rows kept in memory between ticks.
    pub cache_bytes: usize,
    /// Bytes of log kept for peers that were away.
    pub log_max_bytes: u64,
    /// Effects of one transaction at most; what has more is refused.
    pub max_effects: usize,
    /// Bytes of names and values that one transaction may write at most; what has more is refused.
    pub max_bytes: usize,
    /// Elements of sources that are read at once for a view; one over more is built in slices.
    pub build_at_once: u64,
    /// The types that rows can be of.
    pub types: &'static Types,
    /// Faults to show, for the simulator.
    #[cfg(feature = "planted")]
    pub planted: crate::planted::Planted,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            cache_bytes: 256 << 20,
            log_max_bytes: 256 << 20,
            max_effects: MAX_EFFECTS,
            max_bytes: MAX_BYTES,
            build_at_once: 4096,
            types: &TYPES,
            #[cfg(feature = "planted")]
            planted: crate::planted::Planted::None,
        }
    }
}

/// What the engine holds in memory by purpose, in bytes, roughly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Decoded rows.
    pub rows: u64,
    /// Those among them that cannot be let go, since the store does not have them yet.
    pub pinned: u64,
    /// Changes of the lists of deadlines and bindings that the store does not have yet.
    pub lists: u64,
    /// What finds a place in the log.
    pub log_index: u64,
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
    /// Vector and log do not tell the same story (MODEL L2): what is missing would be read by all peers as
    /// removed, so the node must not start.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// The fingerprint of a state, of its vector and what the digest has of its rows. O(origins).
pub fn digest(vector: &VersionVector, rows: u128) -> u128 {
    let mut out = Writer::new();
    vector.encode(&mut out);
    out.u64((rows >> 64) as u64);
    out.u64(rows as u64);
    xxhash_rust::xxh3::xxh3_128(out.as_slice())
}

fn damaged<T>(why: String) -> Result<T, OpenError> {
    Err(OpenError::Damaged(why))
}

/// Everything that a node has changed and its store lacks, at one moment.
pub struct Generation {
    run: Run,
    position: LogPosition,
    /// Where the log ends that is not needed any more.
    floor: LogPosition,
}

impl Generation {
    /// Writes it, on any thread; then the engine has to be told by [`Engine::written`].
    pub fn write<S: Store>(&mut self, store: &S) -> Result<(), StoreError> {
        store.write_run(&mut self.run)?;
        // The floor was written with a tick before, and the run has synced that.
        store.forget(Family::Log, &keys::log(self.floor.next()))
    }
}

/// What the rows of a store are the state of; written with them.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) vector: VersionVector,
    pub(crate) position: LogPosition,
    pub(crate) clock: Hlc,
    digest: u128,
    counts: Vec<u64>,
}

impl State {
    pub(crate) fn load<R: Read>(store: &R) -> Result<Option<State>, StoreError> {
        let Some(record) = store.get(Family::System, keys::STATE)? else { return Ok(None) };
        let decode = || {
            let mut input = Reader::new(&record);
            input.one_of(FIRST_ORDER..=FORMAT)?;
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

    pub(crate) fn encode(&self) -> Writer {
        let mut out = Writer::with_format(FORMAT);
        out.varint(self.position.0);
        out.u64(self.clock.0);
        out.u64((self.digest >> 64) as u64);
        out.u64(self.digest as u64);
        out.varint(self.counts.len() as u64);
        self.counts.iter().for_each(|count| out.varint(*count));
        self.vector.encode(&mut out);
        out
    }
}

/// The data of one node over a store.
pub struct Engine<S: Store> {
    pub(crate) store: S,
    pub(crate) space: Space<S>,
    pub(crate) origin: Origin,
    /// The store does not have the origin yet, since it could not be written at the start: no tick may use
    /// it.
    pub(crate) unsaved: bool,
    pub(crate) vector: VersionVector,
    pub(crate) clock: HlcClock,
    pub(crate) config: EngineConfig,
    /// What the tick has changed; kept between ticks for its memory.
    pub(crate) draft: Draft,
    pub(crate) log: Log,
    /// The log position that the store's rows are the state of.
    pub(crate) watermark: LogPosition,
    /// Bytes of log beyond that, and beyond the generation that is being written.
    pub(crate) behind: u64,
    /// A generation that is being taken, without its rows.
    freezing: Option<Generation>,
    /// Whether a generation is being taken or written.
    pub(crate) writing: bool,
    /// The last one's, kept for its memory.
    run: Run,
}

impl<S: Store> Engine<S> {
    /// Opens a store: checks that vector and log agree, writes and syncs a new incarnation, so that no dot
    /// is ever given twice (MODEL L3), and applies what the log has beyond the rows. Cost: reads the log
    /// through.
    pub fn open(
        store: S,
        config: EngineConfig,
        fresh: Fresh,
        now: Millis,
    ) -> Result<Engine<S>, OpenError> {
        let identity = load_identity(&store)?;
        let state = State::load(&store)?;
        if let Some(state) = &state {
            upgrade::run(&store, state)?;
        }
        let state = match (identity, state) {
            (Some(_), Some(state)) => state,
            (_, None) if is_blank(&store)? => State::default(),
            (None, Some(_)) => {
                return damaged("its rows are there, but not who the node is".into());
            }
            _ => return damaged("its rows are there, but not what they are the state of".into()),
        };
        let mut opened = Log::open(&store, config.log_max_bytes, state.position)?;
        if let Some(barrier) = opened.barrier {
            if barrier != opened.log.position() {
                return damaged("the rows lack a state that was joined".into());
            }
            // A state was about to be joined when the end came: it has not happened.
            let mut batch = store.batch();
            log::cut(&mut batch, barrier);
            store.write(batch, true)?;
            opened = Log::open(&store, config.log_max_bytes, state.position)?;
        }
        let log = opened.log;
        if log.position() < state.position {
            return damaged(format!(
                "the rows are those of log position {}, but the log ends at {}: its end is lost",
                state.position.0,
                log.position().0
            ));
        }
        if opened.vector.as_ref() != Some(&state.vector) {
            return damaged(match state.position {
                LogPosition(0) => format!(
                    "the rows are gone (the folder `rows`), and the log begins at position {} only",
                    log.floor().next().0
                ),
                LogPosition(at) => format!("its rows and its log differ at position {at}"),
            });
        }
        if identity.is_none() && log.position() > LogPosition(0) {
            return damaged("its log is there, but not who the node is".into());
        }
        let origin = Origin {
            node: identity.map_or(fresh.node, |old| old.node),
            incarnation: identity.map_or(0, |old| old.incarnation) + 1,
            nonce: fresh.nonce,
        };
        #[cfg(feature = "planted")]
        let origin = config.planted.reopened(identity, origin);
        let unsaved = match save_identity(&store, origin) {
            // What is there can be read all the same.
            Err(StoreError::Full(_)) if identity.is_some() => true,
            saved => saved.map(|()| false)?,
        };
        let space = Space::open(
            store.clone(),
            state.digest,
            state.counts,
            state.position,
            config.types,
            (config.cache_bytes, config.build_at_once),
            fresh.nonce,
        )?;
        #[cfg(feature = "planted")]
        let space = space.breaking(config.planted);
        let mut engine = Engine {
            space,
            origin,
            unsaved,
            vector: state.vector,
            clock: HlcClock::resume(state.clock),
            config,
            draft: Draft::default(),
            log,
            watermark: state.position,
            behind: 0,
            freezing: None,
            writing: false,
            run: Run::default(),
            store,
        };
        engine.replay(now)?;
        let last = engine.clock.last();
        // A clock that was set back must not stamp below what was stamped and lost.
        if Hlc::at(now) <= last && last != Hlc(0) {
            engine.clock =
                HlcClock::resume(Hlc::at(Millis(last.millis().0.saturating_add(LOST_STAMPS.0))));
        }
        Ok(engine)
    }

    /// Applies what the log has beyond the rows.
    fn replay(&mut self, now: Millis) -> Result<(), OpenError> {
        let log = self.log();
        let mut after = self.watermark;
        while after < self.log.position() {
            let chunk = log.read(after, REPLAYED_BYTES, None)?;
            let mut tick = self.tick(now);
            for entry in &chunk.entries {
                match entry {
                    LogEntry::Commit(commit) => tick.replay(commit)?,
                    LogEntry::Barrier(_) => {
                        return damaged("the rows lack a state that was joined".into());
                    }
                }
            }
            tick.happened();
            after = chunk.next;
        }
        Ok(())
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

    /// Keeps the log beyond a position, up to four times its limit, for a peer that receives a state;
    /// `None`: as usual.
    pub fn hold_log(&mut self, from: Option<LogPosition>) {
        self.log.hold(from);
    }

    /// Tells how large the disk lets a log grow that is held, in bytes: it is trimmed beyond that, but not
    /// below its limit. Unlimited unless told.
    pub fn set_log_room(&mut self, bytes: u64) {
        self.log.set_room(bytes);
    }

    /// Whether the log that was to be kept has grown beyond that and was trimmed: the peer will need another
    /// state.
    pub fn log_let_go(&self) -> bool {
        self.log.let_go()
    }

    /// Rows, and ranges of rows, that could not be read and were given up: what has to be applied, or
    /// replaces a key whatever it was, takes them for empty. Such a node's digest is its own, and its state
    /// is for nobody.
    pub fn lost_rows(&self) -> u64 {
        self.space.lost()
    }

    /// Whether anybody has met what cannot be read since the start.
    pub fn has_unread(&self) -> bool {
        self.space.has_unread()
    }

    /// Bytes of decoded rows in memory.
    pub fn cache_bytes(&self) -> usize {
        self.space.cache_bytes()
    }

    /// What is held in memory. Cost: rows that the store does not have.
    pub fn memory(&self) -> MemoryUse {
        MemoryUse {
            rows: self.space.cache_bytes() as u64,
            pinned: self.space.pinned_bytes() as u64,
            lists: self.space.list_bytes() as u64,
            log_index: self.log.index_bytes() as u64,
        }
    }

    /// Keys that a deadline has hidden since the start.
    pub fn expired_keys(&self) -> u64 {
        self.space.expired_keys()
    }

    /// Keys of a db that have a deadline, and the mean of what is left of their time at `now`. O(1).
    pub fn expires(&self, db: u16, now: Millis) -> (u64, Millis) {
        self.space.expires(db, now)
    }

    /// Active bindings of all dbs.
    pub fn active_bindings(&self) -> usize {
        self.space.graph().nodes().count()
    }

    /// Elements that active bindings could not evaluate and have left out since the start.
    pub fn failed_evaluations(&self) -> u64 {
        self.space.graph().nodes().map(|(_, node)| node.errors()).sum()
    }

    /// The largest stamp made or seen.
    pub fn clock(&self) -> Hlc {
        self.clock.last()
    }

    /// A fingerprint of the whole state, rows and vector: equal exactly when states are, but for
    /// collisions of 128 bits. O(origins).
    pub fn digest(&self) -> u128 {
        digest(&self.vector, self.rows_digest())
    }

    /// What the digest has of the rows. O(1).
    pub fn rows_digest(&self) -> u128 {
        self.space.digest()
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

    /// Between ticks: reads so many elements more into the views that are being built. True if there is more
    /// to do. After an error nothing was read.
    pub fn build_views(&mut self, elements: usize) -> Result<bool, StoreError> {
        self.space.build(elements)
    }

    /// How many views are being built.
    pub fn views_building(&self) -> usize {
        self.space.views_building()
    }

    /// Whether to list changed keys for [`Tick::take_changed`](crate::Tick::take_changed).
    pub fn track_changes(&mut self, on: bool) {
        self.space.track_changes(on);
    }

    /// Makes all sealed ticks durable. After an error the process has to end.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }

    /// Whether whoever has seen that has seen every row, and a db can be cleared as a whole.
    pub(crate) fn covers_all(&self, context: &VersionVector) -> bool {
        #[cfg(feature = "planted")]
        if self.config.planted == crate::planted::Planted::WholeClearTakesUnseen {
            return self.space.is_separable();
        }
        self.space.is_separable() && context.covers(&self.vector)
    }

    /// Whether as much has gathered as should, so that the owner has to see to it that it is written. What
    /// gathers meanwhile is for the owner to bound.
    pub fn is_behind(&self) -> bool {
        self.has_gathered(1)
    }

    /// Whether there is room for work that can wait: less than half of what
    /// [`is_behind`](Engine::is_behind) allows has gathered.
    pub fn has_room(&self) -> bool {
        !self.has_gathered(2)
    }

    /// Whether more has gathered than this part of what may.
    fn has_gathered(&self, part: usize) -> bool {
        let log = GENERATION_LOG.min(self.config.log_max_bytes / 4);
        let rows = GENERATION_ROWS.min(self.config.cache_bytes / 4 / BYTES_PER_ROW);
        self.behind > log / part as u64 || self.space.gathered() > rows / part
    }

    /// Takes everything that the store lacks, to be written on any thread. `None` if there is nothing, or
    /// if the last one is still being written. Cost: what has changed.
    pub fn freeze(&mut self) -> Option<Generation> {
        self.freeze_some(usize::MAX)
    }

    /// The same in pieces of so many rows, with ticks between them: `None` also as long as there is more to
    /// do ([`is_freezing`](Engine::is_freezing)). What is taken is what the store lacked at the first piece.
    pub fn freeze_some(&mut self, rows: usize) -> Option<Generation> {
        if self.freezing.is_none() {
            let position = self.log.position();
            let nothing = self.space.unwritten() == 0 && position == self.watermark;
            if self.writing || self.space.is_torn() || nothing {
                return None;
            }
            self.close_generation(position);
        }
        let run = self.space.encode(rows)?;
        let mut generation = self.freezing.take()?;
        generation.run = run;
        #[cfg(feature = "planted")]
        self.config.planted.frozen(&mut generation.run, &self.store);
        Some(generation)
    }

    /// Whether a generation is being taken.
    pub fn is_freezing(&self) -> bool {
        self.freezing.is_some()
    }

    /// Closes the generation, with what its rows are the state of.
    fn close_generation(&mut self, position: LogPosition) {
        let mut run = std::mem::take(&mut self.run);
        let state = State {
            vector: self.vector.clone(),
            position,
            clock: self.clock.last(),
            digest: self.space.digest(),
            counts: self.space.counts().to_vec(),
        };
        run.put(Family::System, keys::STATE, state.encode().as_slice());
        self.space.freeze(run, position);
        let floor = self.log.floor();
        self.freezing = Some(Generation { run: Run::default(), position, floor });
        self.writing = true;
        self.behind = 0;
    }

    /// Everything that the store lacks, with what it then is the state of. One that is being taken is part of
    /// it.
    pub(crate) fn generation(&mut self, position: LogPosition) -> Option<Generation> {
        if self.is_freezing()
            && let Some(taken) = self.freeze()
        {
            self.thaw(taken, &Err(StoreError::Full("it is part of the next one".into())));
        }
        self.close_generation(position);
        self.freeze()
    }

    /// Takes note of what became of the generation that was taken last. What could not be written is part
    /// of the next one; after `Unknown` the store may have it, and has to be opened again before anything
    /// else is written.
    pub fn written(&mut self, generation: Generation, result: &Result<(), StoreError>) {
        self.thaw(generation, result);
        self.space.settle();
    }

    pub(crate) fn thaw(&mut self, mut generation: Generation, result: &Result<(), StoreError>) {
        self.space.thaw(&generation.run, result.is_ok());
        generation.run.clear();
        self.run = generation.run;
        self.writing = false;
        if result.is_ok() {
            self.watermark = generation.position;
        }
    }

    /// Between ticks, while there is nothing else to do: gives back memory that was needed once, a little at
    /// a time. True if there is more.
    pub fn rest(&mut self) -> bool {
        if !self.writing && self.space.unwritten() == 0 {
            self.run = Run::default();
            self.space.shrink();
        }
        self.space.rest(RESTED)
    }

    /// Writes everything that the store lacks. No generation may be in the making.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        // One that is being taken lacks what came after.
        while let Some(mut generation) = self.freeze() {
            let result = generation.write(&self.store);
            self.written(generation, &result);
            result?;
        }
        Ok(())
    }

    /// The whole state as it is now, to be read on any thread. No generation may be in the making. Refused as
    /// `Corrupt` where rows were given up: others would read them as removed.
    pub fn snapshot(&mut self) -> Result<S::Snapshot, StoreError> {
        if let lost @ 1.. = self.lost_rows() {
            let why =
                "could not be read and were given up here: this state would remove them elsewhere";
            return Err(StoreError::Corrupt(format!("{lost} rows {why}")));
        }
        self.flush()?;
        Ok(self.store.snapshot())
    }

    /// Makes everything durable and lets go of the store. No generation may be in the making. Rows that find
    /// the disk full stay in the log.
    pub fn close(mut self) -> Result<(), StoreError> {
        match self.flush() {
            Ok(()) | Err(StoreError::Full(_)) => self.store.sync(),
            Err(error) => Err(error),
        }
    }
}

/// Whether a store has no data: only then may it be taken for a new one.
fn is_blank<R: Read>(store: &R) -> Result<bool, StoreError> {
    let data = Family::ALL.into_iter().filter(|it| !it.is_journal() && *it != Family::System);
    Ok(!has_rows(store, data)?)
}

/// Makes a new incarnation durable, before anything is written under it.
pub(crate) fn save_identity<S: Store>(store: &S, origin: Origin) -> Result<(), StoreError> {
    let mut batch = store.batch();
    batch.put(Family::Node, keys::IDENTITY, &origin.to_bytes());
    store.write(batch, true)
}

pub(crate) fn load_identity<R: Read>(store: &R) -> Result<Option<Origin>, StoreError> {
    match store.get(Family::Node, keys::IDENTITY)? {
        None => Ok(None),
        Some(bytes) => match <&[u8; Origin::LEN]>::try_from(&bytes[..]) {
            Ok(bytes) => Ok(Some(Origin::from_bytes(bytes))),
            Err(_) => Err(StoreError::Corrupt("identity".into())),
        },
    }
}
