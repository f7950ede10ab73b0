//! Ticks: the steps in which a node changes.
//!
//! Commands run as [`Txn`]s, commits from elsewhere are applied, states are joined, deadlines pass.
//! [`Tick::seal`] writes all of it to the log, as one row, and that is all that a tick waits for; one that
//! cannot be written has not happened.

use crate::causal::{Dot, HlcClock, LogPosition, Millis, Stamp, VersionVector};
use crate::codec::CodecError;
use crate::commit::{Clear, Commit, Effect, EncodedCommit, LogEntry, RowEffect};
use crate::crdt::string::STRING;
use crate::engine::{Engine, Generation, save_identity};
use crate::log;
use crate::name::{RowKey, Scope};
use crate::row::Row;
use crate::space::{Changed, Spot, is_unreadable};
use crate::store::{Batch, Family, Store, StoreError, keys};
use crate::transfer::Staged;
use crate::txn::{OpError, Txn};

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

impl<S: Store> Engine<S> {
    /// Begins a tick at a wall-clock time.
    pub fn tick(&mut self, now: Millis) -> Tick<'_, S> {
        let mark = Mark { vector: self.vector.clone(), clock: self.clock };
        // Deadlines are judged by the wall clock alone: the hybrid one orders, and may stand still or be far
        // ahead.
        self.space.set_now(now);
        #[cfg(feature = "planted")]
        self.space.set_now(self.config.planted.now(now, self.clock.last()));
        Tick { engine: self, now, mark: Some(mark), entries: Vec::new(), bytes: 0, failed: None }
    }
}

/// What a failed tick goes back to, beside the rows.
struct Mark {
    vector: VersionVector,
    clock: HlcClock,
}

/// One step of a node. Dropped without [`seal`](Tick::seal), it has not happened.
pub struct Tick<'e, S: Store> {
    engine: &'e mut Engine<S>,
    now: Millis,
    mark: Option<Mark>,
    entries: Vec<LogEntry>,
    /// Bytes of their bodies.
    bytes: usize,
    /// A store that failed in the middle: rows may be half changed, so the tick cannot be sealed.
    failed: Option<StoreError>,
}

impl<S: Store> Tick<'_, S> {
    /// Begins a command, transaction or script. What follow each other share a commit.
    pub fn txn(&mut self) -> Txn<'_, S> {
        if self.engine.draft.is_full() {
            self.close();
        }
        #[cfg(feature = "planted")]
        let config = self.engine.config.clone();
        let Engine { draft, origin, vector, clock, .. } = &mut *self.engine;
        if draft.is_empty() {
            let stamp = Stamp::new(clock.peek(self.now), self.now);
            #[cfg(feature = "planted")]
            let stamp = config.planted.told(stamp);
            draft.begin(*origin, vector.get(origin) + 1, stamp);
        }
        Txn::new(self.engine, &mut self.failed)
    }

    /// Bytes that the tick will write to the log, roughly. Its owner begins no more once they are many.
    pub fn bytes(&self) -> usize {
        self.bytes + self.engine.draft.bytes()
    }

    /// Weights of views that the tick has changed. Its owner begins no more once they are many.
    pub fn flown(&self) -> usize {
        self.engine.space.flown()
    }

    /// Closes the commit that the transactions so far have made.
    fn close(&mut self) {
        let Engine { draft, space, vector, clock, .. } = &mut *self.engine;
        let Some(commit) = draft.close(space) else { return };
        clock.observe(draft.stamp().hlc);
        vector.advance(commit.origin, commit.last);
        self.bytes += commit.body.len();
        #[cfg(feature = "planted")]
        for half in self.engine.config.planted.split(commit) {
            self.entries.push(LogEntry::Commit(half));
        }
        #[cfg(not(feature = "planted"))]
        self.entries.push(LogEntry::Commit(commit));
    }

    /// As [`Engine::written`].
    pub fn written(&mut self, generation: Generation, result: &Result<(), StoreError>) {
        self.engine.thaw(generation, result);
    }

    /// Applies a commit from elsewhere, whole. False if it was applied before.
    pub fn apply(&mut self, encoded: &EncodedCommit) -> Result<bool, Refused> {
        self.close();
        let seen = self.engine.vector.get(&encoded.origin);
        if encoded.last <= seen {
            return Ok(false);
        }
        if encoded.first != seen + 1 {
            return Err(Refused::Gap(encoded.first_dot()));
        }
        let commit = Commit::decode(encoded)?;
        self.engine.config.types.validate(&commit)?;
        self.apply_commit(commit)?;
        self.bytes += encoded.body.len();
        self.entries.push(LogEntry::Commit(encoded.clone()));
        Ok(true)
    }

    fn apply_commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        let (origin, last, hlc) = (commit.origin, commit.last(), commit.hlc);
        self.guard(|tick| tick.apply_effects(commit))?;
        #[cfg(feature = "planted")]
        let hlc = self.engine.config.planted.stamp(hlc);
        self.engine.clock.observe(hlc);
        self.engine.vector.advance(origin, last);
        Ok(())
    }

    /// Applies a commit that is in the log already.
    pub(crate) fn replay(&mut self, encoded: &EncodedCommit) -> Result<(), StoreError> {
        let commit = Commit::decode(encoded);
        self.apply_commit(commit.map_err(|error| StoreError::corrupt("log row", error))?)
    }

    /// There is no going back any more.
    pub(crate) fn happened(&mut self) {
        self.mark = None;
        self.engine.draft.forget();
        self.engine.space.settle();
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

    fn apply_effects(&mut self, commit: Commit) -> Result<(), StoreError> {
        let stamp = commit.stamp();
        let Commit { origin, first, effects, .. } = commit;
        let dot = |index| Dot { origin, seq: first + index as u64 };
        // Clears first: their context lies before the commit, so they never touch its own rows.
        for (index, effect) in effects.iter().enumerate() {
            if let Effect::Clear(clear) = effect {
                self.apply_clear(clear, dot(index))?;
            }
        }
        for (index, effect) in effects.into_iter().enumerate() {
            if let Effect::Row(effect) = effect {
                let dot = dot(index);
                let RowEffect { row: name, delta } = effect;
                if delta.is_nothing() {
                    continue;
                }
                let spot = self.spot(&name)?;
                let mut row = self.engine.space.look(spot).clone();
                #[cfg(feature = "planted")]
                let old = row.clone();
                row.apply(&delta, dot, stamp);
                #[cfg(feature = "planted")]
                self.engine.config.planted.applied(&old, &mut row, &delta, dot);
                self.replace(name, spot, row)?;
            }
        }
        Ok(())
    }

    /// Replaces a row, and remembers what was there.
    fn replace(&mut self, name: RowKey, spot: Spot, row: Row) -> Result<(), StoreError> {
        let old = self.engine.space.replace(&name, spot, row)?;
        self.engine.draft.change(name, old);
        Ok(())
    }

    fn apply_clear(&mut self, clear: &Clear, dot: Dot) -> Result<(), StoreError> {
        #[cfg(feature = "planted")]
        let planted = self.engine.config.planted;
        if let Scope::Key(db, key) = &clear.scope {
            self.spot(&RowKey::single(*db, key.clone(), STRING))?;
        }
        let (names, holes) = match clear.scope {
            Scope::Db(db) if self.engine.covers_all(&clear.context) => {
                self.clear_whole(db, clear, dot)?;
                Default::default()
            }
            _ => {
                self.clear_large(clear)?;
                self.engine.space.readable_in(&clear.scope)?
            }
        };
        for name in names {
            let spot = self.spot(&name)?;
            let old = self.engine.space.look(spot);
            let mut row = old.clone();
            row.clear(&clear.context, &dot.origin);
            #[cfg(feature = "planted")]
            planted.cleared(&mut row, &clear.context, dot);
            if row != *old {
                self.replace(name, spot, row)?;
            }
        }
        for (name, reset) in &clear.resets {
            #[cfg(feature = "planted")]
            if planted == crate::planted::Planted::ClearContextOnly {
                break;
            }
            let spot = self.spot(name)?;
            let old = self.engine.space.look(spot);
            let mut row = old.clone();
            row.apply_reset(reset, dot);
            if row != *old {
                self.replace(name.clone(), spot, row)?;
            }
        }
        if !holes.is_empty() {
            self.engine.space.erase(holes);
            self.engine.space.recount_scope(&clear.scope)?;
        }
        Ok(())
    }

    /// Takes the large collections of a key away as a whole, if the clear has seen everything.
    fn clear_large(&mut self, clear: &Clear) -> Result<(), StoreError> {
        let Engine { space, draft, vector, .. } = &mut *self.engine;
        if let Scope::Key(db, key) = &clear.scope
            && clear.context.covers(vector)
        {
            for slot in space.separable_slots(*db, key)? {
                let cleared = space.clear_slot(*db, key, slot)?;
                draft.change_whole(cleared, space)?;
            }
        }
        Ok(())
    }

    /// Clears a db of which the clear has seen everything, but for residue of counters.
    fn clear_whole(&mut self, db: u16, clear: &Clear, dot: Dot) -> Result<(), StoreError> {
        let counters = self.engine.space.rows_with_counters(db)?;
        let Engine { space, draft, .. } = &mut *self.engine;
        let cleared = space.clear_db(db);
        draft.change_whole(cleared, space)?;
        for (name, mut row) in counters {
            row.clear(&clear.context, &dot.origin);
            #[cfg(feature = "planted")]
            self.engine.config.planted.cleared(&mut row, &clear.context, dot);
            if !row.is_empty() {
                let spot = self.spot(&name)?;
                self.replace(name, spot, row)?;
            }
        }
        Ok(())
    }

    /// Where a row lies that is to be changed, whatever it was: one that cannot be read is given up.
    fn spot(&mut self, name: &RowKey) -> Result<Spot, StoreError> {
        let space = &mut self.engine.space;
        let spot = space.spot(name);
        if is_unreadable(&spot) {
            space.give_up(name)?;
            return space.spot(name);
        }
        spot
    }

    /// Joins a peer's whole state in one step (MODEL M6), and leaves a barrier in the log. The tick is then
    /// sealed with all rows; no generation may be in the making. Cost: both states.
    pub fn join(&mut self, staged: &Staged) -> Result<(), StoreError> {
        self.close();
        self.guard(|tick| tick.join_rows(staged))?;
        self.engine.vector.join(&staged.vector);
        self.entries.push(LogEntry::Barrier(self.engine.vector.clone()));
        Ok(())
    }

    fn join_rows(&mut self, staged: &Staged) -> Result<(), StoreError> {
        let seen = staged.clock;
        #[cfg(feature = "planted")]
        let seen = self.engine.config.planted.joined_clock(seen);
        let Engine { space, clock, .. } = &mut *self.engine;
        clock.observe(seen);
        let nothing = Row::default();
        let mut names = Vec::new();
        for db in space.databases()? {
            names.extend(space.rows_in(&Scope::Db(db))?);
        }
        names.retain(|name| !staged.rows.contains_key(name));
        let absent = names.iter().map(|name| (name, &nothing));
        for (name, theirs) in staged.rows.iter().chain(absent) {
            #[cfg(feature = "planted")]
            let planted = self.engine.config.planted;
            let spot = self.spot(name)?;
            let Engine { space, vector, .. } = &mut *self.engine;
            let mine = space.look(spot);
            let joined = mine.join(vector, theirs, &staged.vector);
            #[cfg(feature = "planted")]
            let joined = planted.joined(mine, theirs, joined);
            if joined != *mine {
                self.replace(name.clone(), spot, joined)?;
            }
        }
        Ok(())
    }

    /// Hides up to `limit` keys whose deadline lies before the tick's time, and removes those whose
    /// deadline this node has set: only it does, so that one deadline costs one removal everywhere.
    /// True if more may be due.
    pub fn expire_due(&mut self, limit: usize) -> Result<bool, StoreError> {
        let now = self.now;
        let due = self.guard(|tick| tick.engine.space.take_due(now, limit))?;
        for (db, key) in &due {
            let node = self.engine.origin.node;
            if is_unreadable(&self.engine.space.hide_due(*db, key)) {
                // Nobody can read it: it is off the list.
                continue;
            }
            let mine = self.guard(|tick| {
                let place = tick.engine.space.hide_due(*db, key)?;
                let header = tick.engine.space.at(place);
                let due = header.hidden != Millis(0);
                #[cfg(feature = "planted")]
                if tick.engine.config.planted == crate::planted::Planted::ExpiryByLocalClock {
                    return Ok(due);
                }
                Ok(due && header.decision().is_some_and(|it| it.dot.origin.node == node))
            })?;
            if mine {
                let mut txn = self.txn();
                match txn.remove_expired(*db, key) {
                    Err(OpError::Store(error)) if !matches!(error, StoreError::Corrupt(_)) => {
                        return Err(error);
                    }
                    Err(_) => {}
                    Ok(()) => drop(txn.commit()),
                }
            }
        }
        Ok(due.len() == limit)
    }

    /// What changed since the last call, if changes are tracked; may repeat.
    pub fn take_changed(&mut self) -> Vec<Changed> {
        self.engine.space.take_changed()
    }

    /// Writes the tick to the log, durable if `sync`. `None` if nothing became visible to peers. On an error
    /// nothing of the tick has happened, in memory as in the store; after `Unknown` the store may hold the
    /// tick all the same, and has to be opened again before anything else is written.
    pub fn seal(mut self, sync: bool) -> Result<Option<Sealed>, StoreError> {
        self.try_seal(sync).map_err(|error| match self.undo() {
            Ok(()) => error,
            Err(why) => torn(&why),
        })
    }

    fn try_seal(&mut self, sync: bool) -> Result<Option<Sealed>, StoreError> {
        if self.engine.space.is_torn() {
            return Err(StoreError::Unknown("an earlier change could not be taken back".into()));
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.close();
        let entries = std::mem::take(&mut self.entries);
        if entries.is_empty() {
            self.happened();
            return Ok(None);
        }
        if self.engine.unsaved {
            save_identity(&self.engine.store, self.engine.origin)?;
            self.engine.unsaved = false;
        }
        let position = LogPosition(self.engine.log.position().0 + entries.len() as u64);
        let joined = entries.iter().any(|entry| matches!(entry, LogEntry::Barrier(_)));
        let Engine { store, log, watermark, .. } = &mut *self.engine;
        let mut batch = store.batch();
        let row = log::encode_row(&entries);
        let row_bytes = row.parts().len();
        batch.put_parts(Family::Log, &keys::log(position), row.parts());
        drop(row);
        let floor = if joined { None } else { log.trim(&mut batch, *watermark) };
        store.write(batch, sync || joined)?;
        if joined {
            self.write_joined(position)?;
        }
        let log = &mut self.engine.log;
        if let Some(floor) = floor {
            log.trimmed(floor);
        }
        let Engine { log, vector, behind, .. } = &mut *self.engine;
        log.appended(&entries, row_bytes, vector);
        *behind += row_bytes as u64;
        let vector = vector.clone();
        self.happened();
        Ok(Some(Sealed { position, vector, entries }))
    }

    /// Writes all rows behind the barrier of a joined state, which the log does not have. If they cannot be
    /// written, the barrier goes; a start that finds it without them takes it for not written.
    fn write_joined(&mut self, position: LogPosition) -> Result<(), StoreError> {
        if self.engine.writing && !self.engine.is_freezing() {
            return Err(StoreError::Unknown("rows were being written beside a join".into()));
        }
        let Some(mut generation) = self.engine.generation(position) else { return Ok(()) };
        let result = generation.write(&self.engine.store);
        self.engine.thaw(generation, &result);
        let Err(error) = result else { return Ok(()) };
        let mut batch = self.engine.store.batch();
        log::cut(&mut batch, position);
        match self.engine.store.write(batch, true) {
            Ok(()) => Err(error),
            Err(why) => Err(StoreError::Unknown(format!("{error}; {why}"))),
        }
    }
}

/// What is derived from the rows may not fit them any more: only a start puts that right.
fn torn(error: &StoreError) -> StoreError {
    StoreError::Unknown(format!("a change could not be taken back: {error}"))
}

impl<S: Store> Tick<'_, S> {
    /// Goes back to before the tick, unless it has happened.
    fn undo(&mut self) -> Result<(), StoreError> {
        let Some(mark) = self.mark.take() else { return Ok(()) };
        #[cfg(feature = "planted")]
        let vector = self.engine.config.planted.undone(mark.vector, &self.engine.vector);
        #[cfg(feature = "planted")]
        let mark = Mark { vector, ..mark };
        let Engine { vector, clock, space, draft, .. } = &mut *self.engine;
        *vector = mark.vector;
        *clock = mark.clock;
        let undone = draft.undo_all(space);
        match undone {
            Ok(()) => space.unhappen(),
            Err(_) => space.tear(),
        }
        draft.forget();
        match space.is_torn() {
            true => Err(undone.err().unwrap_or(StoreError::Unknown("half of a change".into()))),
            false => Ok(()),
        }
    }
}

impl<S: Store> Drop for Tick<'_, S> {
    fn drop(&mut self) {
        // Without a way back nothing can be sealed any more, and the process ends with the next tick.
        let _ = self.undo();
    }
}
