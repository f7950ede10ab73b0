//! Transactions: one mechanism for plain commands, MULTI and scripts.
//!
//! A transaction changes rows where they lie, so that it reads its own writes, and tells the tick's
//! [`Draft`](crate::draft::Draft) what they were before: from that come the effects, which are net (MODEL
//! M1), and the way back to a [`Savepoint`].
//!
//! This file has what all types share: touching rows, births, deadlines, clears. What a type can do
//! stands in its own file under `crdt/`, as further methods.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::cache::Place;
use crate::causal::{Dot, Hlc, Millis, Origin, Stamp, VersionVector};
use crate::commit::{Clear, CounterReset, RowKey, Scope};
use crate::crdt::{Kind, Slot, birth, deadline};
use crate::dataflow::graph::Graph;
use crate::dataflow::{Definition, MAX_BINDINGS, ops};
use crate::draft::Point;
use crate::engine::Engine;
use crate::header::Header;
use crate::row::Row;
use crate::space::{Spot, is_unreadable};
use crate::store::{Store, StoreError};

/// Rows of a key that are removed one by one; a key with more is cleared by scope, O(1) on the wire.
const MAX_SINGLE_REMOVALS: u64 = 64;

/// Why an operation was refused. What the transaction has changed before is still there: to be committed, or
/// taken back. After `Store` with anything but a row that cannot be read, the whole tick cannot be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The key holds another type.
    #[error("the key holds another type")]
    WrongType,
    /// The string is not an integer of 64 bits.
    #[error("the value is not an integer or out of range")]
    NotInteger,
    /// The hash field is not an integer of 64 bits.
    #[error("the hash value is not an integer")]
    HashNotInteger,
    /// The result would pass the range of 64 bits.
    #[error("increment or decrement would overflow")]
    Overflow,
    /// The key is derived by a binding: the name of its operator.
    #[error("derived by {0}.BIND")]
    Derived(&'static str),
    /// A key with visible data cannot become the target of a binding.
    #[error("the target key holds data")]
    Busy,
    /// A binding that cannot be: the whole message, with the position or the path.
    #[error("{0}")]
    Binding(String),
    /// One transaction has more effects than that.
    #[error("more than {0} changes in one transaction")]
    TooLarge(usize),
    /// One transaction writes more than that.
    #[error("more than {0} bytes of changes in one transaction")]
    TooManyBytes(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of an operation on the data.
pub type OpResult<T> = Result<T, OpError>;

/// What a SET does to the key's time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Removes it.
    Clear,
    /// Keeps it (KEEPTTL).
    Keep,
    /// Sets an absolute deadline.
    At(Millis),
}

/// One surviving write of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiblingInfo {
    /// What was written.
    pub value: Bytes,
    /// By which effect.
    pub dot: Dot,
    /// When.
    pub hlc: Hlc,
}

/// One type slot of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its type.
    pub kind: Kind,
    /// Whether it is the one that clients see.
    pub visible: bool,
    /// When it was born, and by whom.
    pub born: (Hlc, Origin),
    /// Visible rows.
    pub live: u64,
    /// Dots of all rows, of big collections the first 1,000.
    pub dots: Vec<Dot>,
    /// What each origin's increments add, over all rows.
    pub increments: Vec<(Origin, i128)>,
}

/// All that is known of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyInfo {
    /// Slots that have something to see, the visible one first.
    pub slots: Vec<SlotInfo>,
    /// The deadline that counts.
    pub deadline: Option<Millis>,
    /// The operator that derives the key.
    pub derived: Option<&'static str>,
}

/// One binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingInfo {
    /// The key that it derives.
    pub target: Bytes,
    /// The operator's name.
    pub operator: String,
    /// The keys that it derives from.
    pub sources: Vec<Bytes>,
    /// The expression, empty if there is none.
    pub expression: String,
    /// `active`, or why it is not.
    pub state: String,
}

/// Dots that META shows of one slot at most.
const MAX_DOTS_SHOWN: usize = 1_000;

/// A point inside a transaction to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint(Point);

/// One command, transaction or script in the making. Dropped without [`commit`](Txn::commit), it has not
/// happened.
pub struct Txn<'t, S: Store> {
    engine: &'t mut Engine<S>,
    failed: &'t mut Option<StoreError>,
    begin: Point,
}

impl<'t, S: Store> Txn<'t, S> {
    pub(crate) fn new(engine: &'t mut Engine<S>, failed: &'t mut Option<StoreError>) -> Txn<'t, S> {
        let begin = engine.draft.point();
        Txn { engine, failed, begin }
    }

    /// The wall clock of the tick, by which deadlines are judged.
    pub fn now(&self) -> Millis {
        self.engine.space.now()
    }

    /// The engine, to look at, with what this tick has changed so far.
    pub fn engine(&self) -> &Engine<S> {
        self.engine
    }

    /// A row that cannot be read fails the operation, which has changed nothing by it; any other failure of
    /// the store the whole tick.
    pub(crate) fn guard<T>(&mut self, result: Result<T, StoreError>) -> OpResult<T> {
        result.map_err(|error| {
            match error {
                StoreError::Corrupt(_) => self.engine.space.meet_damage(),
                _ => *self.failed = Some(error.clone()),
            }
            OpError::Store(error)
        })
    }

    // ---- touching rows -------------------------------------------------------------------------------

    fn spot(&mut self, row: &RowKey) -> OpResult<Spot> {
        let spot = self.engine.space.spot(row);
        self.guard(spot)
    }

    /// Changes a row under the dot that the commit has for it.
    pub(crate) fn change(
        &mut self,
        row: RowKey,
        change: impl FnOnce(&mut Row, Dot, Stamp),
    ) -> OpResult<()> {
        let spot = self.spot(&row)?;
        let Engine { space, draft, .. } = &mut *self.engine;
        let mut new = space.look(spot).clone();
        change(&mut new, draft.dot(spot), draft.stamp());
        self.replace(row, spot, new, 0)
    }

    /// Leaves one payload in a row, superseding what is there.
    pub(crate) fn put(&mut self, row: RowKey, payload: Bytes) -> OpResult<()> {
        let spot = self.spot(&row)?;
        let Engine { space, draft, .. } = &mut *self.engine;
        let (old, dot, len) = (space.look(spot), draft.dot(spot), payload.len());
        if old.is_just(&dot, &payload) {
            // A register that is overwritten with its value counts as changed, as in Redis.
            if matches!(row.slot, Slot::String | Slot::Hash) {
                space.note_change(row.db, &row.key);
            }
            return Ok(());
        }
        let mut new = old.without_siblings();
        new.put(dot, draft.stamp(), payload);
        self.replace(row, spot, new, len)
    }

    fn replace(&mut self, row: RowKey, spot: Spot, new: Row, payload: usize) -> OpResult<()> {
        self.check_room()?;
        self.check_bytes(row.key.len() + row.subkey.len() + payload)?;
        let replaced = self.engine.space.replace(&row, spot, new);
        let old = self.guard(replaced)?;
        self.engine.draft.touch(row, spot, old, payload);
        Ok(())
    }

    /// Whether the commit may have one more effect.
    fn check_room(&self) -> OpResult<()> {
        let most = self.engine.config.max_effects;
        if self.engine.draft.effects() < most { Ok(()) } else { Err(OpError::TooLarge(most)) }
    }

    /// Whether the transaction may write so many bytes more.
    fn check_bytes(&self, more: usize) -> OpResult<()> {
        let most = self.engine.config.max_bytes;
        let fits = self.engine.draft.bytes_since(self.begin).saturating_add(more) <= most;
        if fits { Ok(()) } else { Err(OpError::TooManyBytes(most)) }
    }

    /// Supersedes what is in a row, if there is anything.
    pub(crate) fn remove(&mut self, row: RowKey) -> OpResult<()> {
        let live = self.row(&row)?.is_live();
        if live { self.change(row, |row, dot, _| row.supersede(dot)) } else { Ok(()) }
    }

    /// A row as this transaction sees it.
    pub(crate) fn row(&mut self, row: &RowKey) -> OpResult<&Row> {
        let spot = self.spot(row)?;
        Ok(self.engine.space.look(spot))
    }

    #[cfg(feature = "planted")]
    pub(crate) fn takes_no_dot(&mut self, row: &RowKey) -> OpResult<bool> {
        let fault = crate::planted::Planted::PresentMemberTakesNoDot;
        Ok(self.engine.config.planted == fault && self.row(row)?.is_live())
    }

    // ---- keys ----------------------------------------------------------------------------------------

    /// A key's record, with what its deadline hides by now hidden.
    pub(crate) fn open(&mut self, db: u16, key: &[u8]) -> OpResult<Place> {
        let place = self.engine.space.hide_due(db, key);
        self.guard(place)
    }

    pub(crate) fn at(&self, place: Place) -> &Header {
        self.engine.space.at(place)
    }

    /// Opens a key to read a type: false if the key is absent.
    pub(crate) fn open_as(&mut self, db: u16, key: &[u8], slot: Slot) -> OpResult<Option<Place>> {
        let place = self.open(db, key)?;
        match self.at(place).visible() {
            None => Ok(None),
            Some(visible) if visible == slot => Ok(Some(place)),
            Some(_) => Err(OpError::WrongType),
        }
    }

    /// Opens a key to write to: derived keys refuse, and what a passed deadline hides is removed in the
    /// same commit (MODEL M7).
    pub(crate) fn open_for_write(&mut self, db: u16, key: &[u8]) -> OpResult<Place> {
        let place = self.open(db, key)?;
        if self.at(place).derived.is_some() {
            return Err(OpError::Derived(self.operator_of(db, key)));
        }
        if self.at(place).hidden != Millis(0) {
            self.remove_expired(db, key)?;
        }
        Ok(place)
    }

    /// The same for a write that needs the key to be absent or of one type.
    pub(crate) fn open_for_write_as(&mut self, db: u16, key: &[u8], slot: Slot) -> OpResult<Place> {
        let place = self.open(db, key)?;
        if self.at(place).derived.is_none()
            && self.at(place).visible().is_some_and(|visible| visible != slot)
        {
            return Err(OpError::WrongType);
        }
        let place = self.open_for_write(db, key)?;
        let header = self.at(place);
        if header.visible().is_none() && !header.deadline().is_empty() {
            // Left by a key that was removed elsewhere at the same time: not of the key to be.
            self.remove(RowKey::single(db, Bytes::copy_from_slice(key), Slot::Deadline))?;
        }
        Ok(place)
    }

    fn operator_of(&self, db: u16, key: &[u8]) -> &'static str {
        let target = (db, Bytes::copy_from_slice(key));
        self.engine
            .space
            .graph()
            .node(&target)
            .and_then(|node| ops::operator(&node.definition.operator))
            .map_or("", |record| record.name)
    }

    /// Removes what a passed deadline hides, and the deadline.
    pub(crate) fn remove_expired(&mut self, db: u16, key: &[u8]) -> OpResult<()> {
        let place = self.open(db, key)?;
        let end = self.at(place).hidden;
        #[cfg(feature = "planted")]
        let end = if end == Millis(0) { end } else { self.engine.config.planted.end(end) };
        if end == Millis(0) {
            return Ok(());
        }
        let scope = Scope::Key(db, Bytes::copy_from_slice(key));
        let names = self.engine.space.rows_in(&scope);
        let names = self.guard(names)?;
        let of_slot = |name: &&RowKey| !matches!(name.slot, Slot::Deadline | Slot::Birth);
        for name in names.iter().filter(of_slot) {
            let row = self.row(name)?;
            let old = row.siblings().iter().any(|sibling| !sibling.is_after(end))
                || row.counters().iter().any(|entry| entry.is_live() && !entry.is_after(end));
            if old && row.is_live() {
                self.change(name.clone(), |row, dot, _| row.supersede_until(end, dot))?;
            }
        }
        // A birth goes with the last row of its slot, whenever it was written: one by a slow clock may stand
        // for rows that are newer.
        for name in names.into_iter().filter(|name| name.slot == Slot::Birth) {
            let slot = name.subkey.first().and_then(|number| Slot::from_u8(*number));
            if slot.is_some_and(|slot| self.at(place).rows(slot) == 0) {
                self.remove(name)?;
            }
        }
        self.remove(RowKey::single(db, Bytes::copy_from_slice(key), Slot::Deadline))
    }

    /// Removes all that is seen of a key, hidden slots, births and deadline included.
    pub(crate) fn remove_key(&mut self, db: u16, key: &[u8]) -> OpResult<()> {
        let key = Bytes::copy_from_slice(key);
        let place = self.open(db, &key)?;
        let header = self.at(place);
        let stored: u64 = header.slots.iter().map(|state| state.stored).sum();
        if stored > MAX_SINGLE_REMOVALS {
            return self.clear(Scope::Key(db, key), false);
        }
        if stored == 0 && header.slots.is_empty() {
            let deadline = !header.deadline().is_empty();
            self.remove(RowKey::single(db, key.clone(), Slot::String))?;
            return match deadline {
                true => self.remove(RowKey::single(db, key, Slot::Deadline)),
                false => Ok(()),
            };
        }
        let scope = Scope::Key(db, key);
        let names = match self.engine.draft.since_clear(&scope) {
            Some(names) => names,
            None => {
                let names = self.engine.space.rows_in(&scope);
                self.guard(names)?
            }
        };
        for name in names {
            self.remove(name)?;
        }
        self.engine.draft.cleared_again(&scope);
        Ok(())
    }

    /// Does what replaces a key, or all of a db, whatever was there: what cannot be read is given up for it.
    /// Tells with the result whether anything was.
    pub(crate) fn replacing<T>(
        &mut self,
        db: u16,
        key: Option<&[u8]>,
        replace: impl Fn(&mut Self) -> OpResult<T>,
    ) -> OpResult<(T, bool)> {
        let before = self.savepoint();
        match replace(self) {
            Err(OpError::Store(StoreError::Corrupt(_))) => {
                self.rollback(before);
                let scope = match key {
                    None => Scope::Db(db),
                    Some(key) => Scope::Key(db, Bytes::copy_from_slice(key)),
                };
                if let Scope::Key(db, key) = &scope
                    && is_unreadable(&self.engine.space.header(*db, key))
                {
                    if self.engine.space.graph().node(&(*db, key.clone())).is_some() {
                        return Err(OpError::Derived(self.operator_of(*db, key)));
                    }
                    let given_up = self.engine.space.give_up_record(*db, key);
                    self.guard(given_up)?;
                }
                self.clear(scope, true)?;
                Ok((replace(self)?, true))
            }
            done => Ok((done?, false)),
        }
    }

    /// Removes by scope, if anything is there: one effect with the vector before this commit as context
    /// (MODEL M3), and the observed sums of other origins' counters (MODEL M2); the first clear of a commit
    /// has all of that, later ones of the scope undo what the commit itself has done since. With `give_up`
    /// what cannot be read counts as there; else it fails.
    fn clear(&mut self, scope: Scope, give_up: bool) -> OpResult<()> {
        let mut clear = Clear { scope, context: self.engine.vector.clone(), resets: Vec::new() };
        let since = match give_up {
            true => None,
            false => self.engine.draft.since_clear(&clear.scope),
        };
        let again = since.is_some();
        let names = match since {
            Some(names) => Ok((names, Vec::new())),
            None if give_up => self.engine.space.readable_in(&clear.scope),
            None => self.engine.space.rows_in(&clear.scope).map(|names| (names, Vec::new())),
        };
        let (names, holes) = self.guard(names)?;
        let dot = self.engine.draft.next();
        let mut live = give_up;
        for name in names {
            let spot = self.spot(&name)?;
            let row = self.engine.space.look(spot);
            if !row.is_live() {
                continue;
            }
            self.check_room()?;
            live = true;
            let foreign = row
                .counters()
                .iter()
                .filter(|entry| entry.is_live() && entry.origin != dot.origin)
                .map(|entry| CounterReset {
                    origin: entry.origin,
                    generation: entry.generation,
                    last: entry.last,
                    sum: entry.sum,
                });
            clear.resets.extend(foreign.map(|reset| (name.clone(), reset)));
            let mut new = row.clone();
            new.supersede(dot);
            let replaced = self.engine.space.replace(&name, spot, new);
            let old = self.guard(replaced)?;
            self.engine.draft.change(name, spot, old);
        }
        if give_up {
            self.engine.space.erase(holes);
            let recounted = self.engine.space.recount_scope(&clear.scope);
            self.guard(recounted)?;
        }
        if again {
            self.engine.draft.cleared_again(&clear.scope);
        } else if live {
            self.engine.draft.clear(clear);
        }
        Ok(())
    }

    /// Stamps the birth of a collection slot that was just written to (MODEL M8). `lived` says whether it
    /// had visible rows before.
    pub(crate) fn stamp_birth(
        &mut self,
        db: u16,
        key: &Bytes,
        slot: Slot,
        lived: bool,
    ) -> OpResult<()> {
        #[cfg(feature = "planted")]
        if lived && self.engine.config.planted == crate::planted::Planted::BirthByCreatorOnly {
            return Ok(());
        }
        let place = self.open(db, key)?;
        let spot = Spot::Birth(place, slot);
        let Engine { space, draft, .. } = &mut *self.engine;
        let dot = draft.dot(spot);
        if lived && space.look(spot).siblings().iter().any(|birth| birth.dot == dot) {
            // This commit has stamped it already.
            return Ok(());
        }
        let birth = match self.at(place).born(slot).filter(|_| lived) {
            Some((born, origin)) => birth::encode(born, &origin),
            None => Bytes::new(),
        };
        let subkey = slot.as_subkey();
        self.put(RowKey { db, key: key.clone(), slot: Slot::Birth, subkey }, birth)
    }

    /// Copies the key's deadline, if it has one, under a dot of this commit (MODEL M7).
    pub(crate) fn stamp_deadline(&mut self, db: u16, key: &[u8]) -> OpResult<()> {
        let place = self.open(db, key)?;
        match self.at(place).decision() {
            Some(decision) if decision.time.is_some() => {
                let decision = decision.clone();
                let name = RowKey::single(db, Bytes::copy_from_slice(key), Slot::Deadline);
                // Records of other decisions stay: if this one is replaced by a node that has not seen them,
                // the longest of them counts again.
                self.change(name, |row, dot, stamp| {
                    row.put_beside(dot, stamp, decision.copy(), |old| decision.covers(old));
                })
            }
            _ => Ok(()),
        }
    }

    /// All decisions about the key's time to live but those of this commit: of them only the last is left.
    pub(crate) fn decisions(&self, place: Place) -> VersionVector {
        let own = self.engine.draft.dot(Spot::Deadline(place));
        deadline::observed(self.at(place).deadline(), &own)
    }

    /// Decides about the key's time to live. `replaces` is what the command saw of earlier decisions,
    /// also if it has removed them itself: copies of them may still come from elsewhere.
    pub(crate) fn decide(
        &mut self,
        db: u16,
        key: &[u8],
        time: Option<Millis>,
        replaces: &VersionVector,
    ) -> OpResult<()> {
        let payload = deadline::encode(time, None, replaces);
        if time.is_some() {
            self.engine.space.note_change(db, key);
        }
        self.put(RowKey::single(db, Bytes::copy_from_slice(key), Slot::Deadline), payload)
    }

    /// The type of a key, `None` if it is absent.
    pub fn kind(&mut self, db: u16, key: &[u8]) -> OpResult<Option<Kind>> {
        let place = self.open(db, key)?;
        Ok(self.at(place).visible().and_then(Slot::kind))
    }

    /// Removes a key, hidden types included; false if it was absent. Derived keys refuse.
    pub fn delete(&mut self, db: u16, key: &[u8]) -> OpResult<bool> {
        let deleted = self.replacing(db, Some(key), |txn| txn.delete_read(db, key))?;
        Ok(deleted.0 || deleted.1)
    }

    fn delete_read(&mut self, db: u16, key: &[u8]) -> OpResult<bool> {
        let place = self.open_for_write(db, key)?;
        let visible = self.at(place).visible().is_some();
        if visible {
            self.remove_key(db, key)?;
        }
        Ok(visible)
    }

    /// The deadline of a key: `None` if the key is absent, `Some(None)` if it has no deadline.
    pub fn deadline(&mut self, db: u16, key: &[u8]) -> OpResult<Option<Option<Millis>>> {
        let place = self.open(db, key)?;
        let header = self.at(place);
        // A passed deadline says nothing of what was written after it, and that of client data nothing of
        // the view that hides it.
        let applies = header.hidden == Millis(0) && header.derived.is_none();
        let expires = header.expires().filter(|_| applies);
        Ok(header.visible().map(|_| expires))
    }

    /// The deadline that hides at this node what was written at it or before, if one has passed and what it
    /// hides was not removed yet.
    pub fn hidden_by(&mut self, db: u16, key: &[u8]) -> OpResult<Option<Millis>> {
        let place = self.open(db, key)?;
        Ok(Some(self.at(place).hidden).filter(|hidden| *hidden != Millis(0)))
    }

    /// Sets a deadline, or removes it if `time` is `None`. A time that has passed removes the key. False
    /// if the key is absent, or if there was no deadline to remove.
    pub fn expire(&mut self, db: u16, key: &[u8], time: Option<Millis>) -> OpResult<bool> {
        let place = self.open(db, key)?;
        if self.at(place).visible().is_none() {
            return Ok(false);
        }
        let place = self.open_for_write(db, key)?;
        match time {
            Some(time) if time < self.now() => self.remove_key(db, key)?,
            // "Never" was decided before.
            None if self.at(place).decision().is_some_and(|it| it.time.is_none()) => {
                return Ok(false);
            }
            time => {
                // Without a deadline to remove it is a decision all the same: it outlasts a concurrent one.
                let changes = time.is_some() || self.at(place).expires().is_some();
                let seen = self.decisions(place);
                self.decide(db, key, time, &seen)?;
                return Ok(changes);
            }
        }
        Ok(true)
    }

    /// Visible keys of a db. O(1).
    pub fn db_size(&mut self, db: u16) -> OpResult<u64> {
        Ok(self.engine.space.count(db))
    }

    /// Removes everything of a db, its bindings too. Cost: its rows; O(1) on the wire.
    pub fn flush(&mut self, db: u16) -> OpResult<()> {
        self.replacing(db, None, |txn| txn.clear(Scope::Db(db), false)).map(drop)
    }

    /// Visits the visible keys of a db in byte order, beginning after a key.
    pub fn keys(
        &mut self,
        db: u16,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Kind) -> ControlFlow<()>,
    ) -> OpResult<()> {
        let visited = self.engine.space.visit_headers(db, after, &mut |key, header| match header
            .visible()
            .and_then(Slot::kind)
        {
            Some(kind) => visit(key, kind),
            None => ControlFlow::Continue(()),
        });
        self.guard(visited)
    }

    /// Everything that is known of a key; `None` if there is nothing visible.
    pub fn inspect(&mut self, db: u16, key: &[u8]) -> OpResult<Option<KeyInfo>> {
        let place = self.open(db, key)?;
        let header = self.at(place).clone();
        let Some(visible) = header.visible() else { return Ok(None) };
        let mut info = KeyInfo { deadline: header.expires(), ..KeyInfo::default() };
        info.derived = header.derived.map(|_| self.operator_of(db, key));
        let collections = header.slots.iter().filter(|state| state.rows > 0);
        let string = header.string.is_visible(header.hidden).then_some(Slot::String);
        for slot in collections.map(|state| state.slot).chain(string) {
            let (Some(kind), Some(born)) = (slot.kind(), header.born(slot)) else { continue };
            let mut slot_info = SlotInfo {
                kind,
                visible: slot == visible && info.derived.is_none(),
                born,
                live: header.rows(slot),
                dots: Vec::new(),
                increments: Vec::new(),
            };
            if slot == Slot::String {
                slot_info.live = 1;
                slot_info.add(&header.string, header.hidden);
            } else {
                let visited = self.engine.space.visit_rows(db, key, slot, &mut |_, row| {
                    slot_info.add(row, header.hidden);
                    ControlFlow::Continue(())
                });
                self.guard(visited)?;
            }
            info.slots.push(slot_info);
        }
        info.slots.sort_by_key(|slot| !slot.visible);
        Ok(Some(info))
    }

    /// Bytes of memory that a key takes when all of it is there, by `samples` rows of a collection, or by
    /// all if that is 0; `None` if it is absent. Cost: the samples.
    pub fn key_bytes(&mut self, db: u16, key: &[u8], samples: usize) -> OpResult<Option<u64>> {
        self.open(db, key)?;
        let bytes = self.engine.space.key_bytes(db, key, samples);
        self.guard(bytes)
    }

    // ---- bindings ------------------------------------------------------------------------------------

    /// Makes `target` a view. Replaces the binding that it has, if it has one.
    pub fn bind(
        &mut self,
        db: u16,
        target: &[u8],
        operator: &str,
        sources: &[Bytes],
        expression: &str,
    ) -> OpResult<()> {
        let refuse = |why: String| Err(OpError::Binding(why));
        let Some(record) = ops::operator(operator) else {
            return refuse(format!("unknown operator {operator}"));
        };
        if !record.inputs.contains(&sources.len()) {
            return refuse(format!("wrong number of sources for {}", record.name));
        }
        let definition = Definition {
            operator: record.name.into(),
            sources: sources.to_vec(),
            expression: expression.into(),
        };
        if let Err(why) = (record.build)(&definition) {
            return refuse(why);
        }
        let key = (db, Bytes::copy_from_slice(target));
        if let Some(path) = self.engine.space.graph().cycle(&key, sources) {
            return refuse(format!("the binding {path}"));
        }
        let known = self.engine.space.bindings();
        if known.len() >= MAX_BINDINGS && !known.contains_key(&key) {
            return refuse(format!("more than {MAX_BINDINGS} bindings"));
        }
        let place = self.open(db, target)?;
        if self.at(place).derived.is_none() && self.at(place).visible().is_some() {
            return Err(OpError::Busy);
        }
        self.put(RowKey::single(db, key.1, Slot::Binding), definition.encode())
    }

    /// Removes the binding of a target; false if it has none.
    pub fn unbind(&mut self, db: u16, target: &[u8]) -> OpResult<bool> {
        let row = RowKey::single(db, Bytes::copy_from_slice(target), Slot::Binding);
        let live = self.row(&row)?.is_live();
        self.remove(row)?;
        Ok(live)
    }

    /// The bindings of a db, by target; those that lost to a concurrent definition after the winner.
    pub fn bindings(&mut self, db: u16) -> Vec<BindingInfo> {
        let space = &self.engine.space;
        let graph: &Graph = space.graph();
        let mut list = Vec::new();
        for (target, row) in space.bindings().iter().filter(|(target, _)| target.0 == db) {
            for (rank, sibling) in row.siblings().iter().enumerate() {
                let Ok(definition) = Definition::decode(&sibling.payload) else { continue };
                let state = match (rank, graph.suspended(target), graph.node(target)) {
                    (1.., _, _) => "superseded: a concurrent definition won".into(),
                    (_, Some(why), _) => format!("suspended: {why}"),
                    (_, None, Some(node)) if node.errors() > 0 => {
                        format!("active, {} evaluations failed", node.errors())
                    }
                    _ => "active".into(),
                };
                list.push(BindingInfo {
                    target: target.1.clone(),
                    operator: definition.operator,
                    sources: definition.sources,
                    expression: definition.expression,
                    state,
                });
            }
        }
        list
    }

    // ---- views of derived keys and spaces for the types ------------------------------------------------

    pub(crate) fn visit_rows(
        &mut self,
        db: u16,
        key: &[u8],
        slot: Slot,
        visit: &mut dyn FnMut(&[u8], &Row) -> ControlFlow<()>,
    ) -> OpResult<()> {
        let visited = self.engine.space.visit_rows(db, key, slot, visit);
        self.guard(visited)
    }

    pub(crate) fn visit_elements(
        &mut self,
        db: u16,
        key: &[u8],
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> OpResult<()> {
        let visited = self.engine.space.visit_elements(db, key, visit);
        self.guard(visited)
    }

    pub(crate) fn weight(&mut self, db: u16, key: &[u8], element: &[u8]) -> OpResult<u64> {
        let weight = self.engine.space.weight(db, key, element);
        self.guard(weight)
    }

    // ---- the transaction -----------------------------------------------------------------------------

    /// A point to go back to.
    pub fn savepoint(&mut self) -> Savepoint {
        Savepoint(self.engine.draft.point())
    }

    /// Puts back everything that was changed since the savepoint, derived values included. A savepoint of
    /// another transaction goes back to the beginning of this one.
    pub fn rollback(&mut self, to: Savepoint) {
        let Engine { draft, space, .. } = &mut *self.engine;
        if let Err(error) = draft.undo(to.0.max(self.begin), space) {
            space.tear();
            *self.failed = Some(error);
        }
    }

    /// Makes what was done part of the tick's commit, which has this dot as its last for now: once that is
    /// sealed, a vector that covers it covers the transaction. `None` if nothing was changed. If others of
    /// the tick take back all that was done, there is no commit and the dot is not given.
    pub fn commit(mut self) -> Option<Dot> {
        let draft = &mut self.engine.draft;
        if self.failed.is_some() || !draft.changed_since(self.begin) {
            return None;
        }
        draft.release(self.begin);
        self.begin = draft.point();
        Some(draft.last())
    }
}

impl<S: Store> Drop for Txn<'_, S> {
    fn drop(&mut self) {
        self.rollback(Savepoint(self.begin));
    }
}

impl SlotInfo {
    fn add(&mut self, row: &Row, hidden: Millis) {
        let room = MAX_DOTS_SHOWN.saturating_sub(self.dots.len());
        let siblings = row.siblings().iter().filter(|sibling| sibling.is_after(hidden));
        self.dots.extend(siblings.map(|sibling| sibling.dot).take(room));
        for entry in row.counters().iter().filter(|entry| entry.is_live() && entry.is_after(hidden))
        {
            match self.increments.iter_mut().find(|(origin, _)| *origin == entry.origin) {
                Some((_, sum)) => *sum = sum.wrapping_add(entry.value()),
                None => self.increments.push((entry.origin, entry.value())),
            }
        }
    }
}
