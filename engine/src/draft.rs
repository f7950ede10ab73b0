//! The commit that a tick is making, and the way back.
//!
//! What clients do in one tick becomes visible at one moment, so it is one commit: a row has one dot in it,
//! however many commands change it, and what they do to it is net (MODEL M1). Many that add to one set
//! stamp its birth once. The draft lists the touched rows in the order of their dots, each as it was
//! before. When it is closed, the difference to what the row is now becomes the effect.
//!
//! Going back is putting rows back, the latest first. For that the draft also keeps what else has changed:
//! rows touched again, rows that a clear has swept, rows changed by commits of other nodes. Of a command
//! that is done, what rows were in its middle is forgotten; the rest stays until the tick is over.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::causal::{Dot, Origin, Stamp};
use crate::commit::{Clear, EncodedCommit, Encoder};
use crate::name::{RowKey, Scope, Slot};
use crate::row::Row;
use crate::space::{Cleared as Whole, Space, Spot};
use crate::store::{Store, StoreError};

/// Effects after which a draft is closed, so that what other nodes apply in one step stays small. One
/// transaction may have more.
const EFFECTS: usize = 4_096;
/// The same for bytes of names and payloads.
const BYTES: usize = 256 << 10;

/// A reset in a clear, beside its names. Bytes, roughly.
const RESET: usize = 32;
/// Touches for which memory is kept from tick to tick.
const KEPT: usize = 4 * EFFECTS;

/// What takes a dot.
enum Touch {
    /// A row, and what it was.
    Row { name: RowKey, spot: Spot, before: Row },
    /// A removal by scope.
    Clear(Clear),
}

/// A change that takes no dot of its own.
struct Further {
    /// How many touches came before it.
    after: usize,
    which: Which,
    before: Row,
}

enum Which {
    /// The row of that touch, once more.
    Again(usize),
    /// A row that a clear or another node's commit has changed.
    Other(RowKey),
    /// Rows that were taken away as a whole.
    Whole(Box<Whole>),
}

/// A point to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    touches: usize,
    further: usize,
    /// Bytes of the open commit then.
    bytes: usize,
}

/// A scope after a clear by the open commit. What the clear removes is what was before the commit; so one
/// that comes later in the same commit needs no effect of its own.
struct Cleared {
    /// How many touches there were then.
    touches: usize,
    /// Its rows that may live again.
    since: BTreeSet<RowKey>,
}

/// A row of the open commit: its number and its touch.
type Known = (u64, usize);

#[derive(Default)]
pub(crate) struct Draft {
    origin: Origin,
    /// The seq of the open commit's first effect.
    first: u64,
    stamp: Stamp,
    /// All touches of the tick, in order.
    touches: Vec<Touch>,
    /// Where those of the open commit begin.
    open: usize,
    known: HashTable<Known>,
    further: Vec<Further>,
    /// Names and payloads of the open commit.
    bytes: usize,
    /// Dbs and keys that the open commit has cleared.
    cleared: BTreeMap<(u16, Option<Bytes>), Cleared>,
}

fn place(scope: &Scope) -> (u16, Option<Bytes>) {
    match scope {
        Scope::Db(db) => (*db, None),
        Scope::Key(db, key) => (*db, Some(key.clone())),
    }
}

fn hash(spot: u64) -> u64 {
    FixedState::default().hash_one(spot)
}

impl Draft {
    /// Whether the open commit has no effect yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.touches.len() == self.open
    }

    /// Effects of the open commit so far.
    pub(crate) fn effects(&self) -> usize {
        self.touches.len() - self.open
    }

    /// Whether the open commit is to be closed before more is done.
    pub(crate) fn is_full(&self) -> bool {
        self.effects() >= EFFECTS || self.bytes >= BYTES
    }

    /// Begins a commit in place of one that is empty.
    pub(crate) fn begin(&mut self, origin: Origin, first: u64, stamp: Stamp) {
        (self.origin, self.first, self.stamp) = (origin, first, stamp);
        self.bytes = 0;
    }

    /// The stamp of the open commit.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The dot of the last effect so far.
    pub(crate) fn last(&self) -> Dot {
        let Dot { origin, seq } = self.next();
        Dot { origin, seq: seq - 1 }
    }

    fn dot_at(&self, touch: usize) -> Dot {
        Dot { origin: self.origin, seq: self.first + (touch - self.open) as u64 }
    }

    /// The dot of the next effect.
    pub(crate) fn next(&self) -> Dot {
        self.dot_at(self.touches.len())
    }

    /// The touch of a row in the open commit.
    fn find(&self, spot: Spot) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let spot = spot.number();
        self.known.find(hash(spot), |(known, _)| *known == spot).map(|(_, touch)| *touch)
    }

    /// The dot that the open commit has given to a row, or would.
    pub(crate) fn dot(&self, spot: Spot) -> Dot {
        self.dot_at(self.find(spot).unwrap_or(self.touches.len()))
    }

    /// A row was changed under its dot.
    pub(crate) fn touch(&mut self, name: RowKey, spot: Spot, before: Row, payload: usize) {
        self.may_live(&name);
        let (touches, number) = (self.touches.len(), spot.number());
        let known = |(known, _): &Known| *known == number;
        match self.known.entry(hash(number), known, |(known, _)| hash(*known)) {
            Entry::Occupied(touch) => {
                let old = before.siblings().first().map_or(0, |sibling| sibling.payload.len());
                self.bytes += payload.saturating_sub(old);
                let which = Which::Again(touch.get().1);
                self.further.push(Further { after: touches, which, before });
            }
            Entry::Vacant(place) => {
                place.insert((number, touches));
                self.bytes += name.key.len() + name.subkey.len() + payload;
                self.touches.push(Touch::Row { name, spot, before });
            }
        }
    }

    /// A removal by scope takes a dot.
    pub(crate) fn clear(&mut self, clear: Clear) {
        let reset = |(name, _): &(RowKey, _)| name.key.len() + name.subkey.len() + RESET;
        self.bytes += clear.resets.iter().map(reset).sum::<usize>();
        let cleared = Cleared { touches: self.touches.len() + 1, since: BTreeSet::new() };
        self.cleared.insert(place(&clear.scope), cleared);
        self.touches.push(Touch::Clear(clear));
    }

    /// If the open commit has cleared the scope: those of its rows that may live again. No other does.
    pub(crate) fn since_clear(&self, scope: &Scope) -> Option<Vec<RowKey>> {
        let cleared = self.cleared.get(&place(scope))?;
        Some(cleared.since.iter().cloned().collect())
    }

    /// A scope that the open commit has cleared is empty again.
    pub(crate) fn cleared_again(&mut self, scope: &Scope) {
        if let Some(cleared) = self.cleared.get_mut(&place(scope)) {
            cleared.since.clear();
        }
    }

    /// A row may live, whatever was cleared before.
    fn may_live(&mut self, name: &RowKey) {
        if self.cleared.is_empty() {
            return;
        }
        if let Some(cleared) = self.cleared.get_mut(&(name.db, None)) {
            cleared.since.insert(name.clone());
        }
        // Clearing a key leaves its binding.
        if name.slot != Slot::BINDING
            && let Some(cleared) = self.cleared.get_mut(&(name.db, Some(name.key.clone())))
        {
            cleared.since.insert(name.clone());
        }
    }

    /// A row was changed by a clear or by a commit of another node.
    pub(crate) fn change(&mut self, name: RowKey, before: Row) {
        let which = Which::Other(name);
        self.further.push(Further { after: self.touches.len(), which, before });
    }

    /// Rows were taken away as a whole. Places that were known before are looked for again: after an error
    /// the tick cannot go on. Cost: what the open commit has touched.
    pub(crate) fn change_whole<S: Store>(
        &mut self,
        whole: Whole,
        space: &mut Space<S>,
    ) -> Result<(), StoreError> {
        let which = Which::Whole(Box::new(whole));
        let after = self.touches.len();
        self.further.push(Further { after, which, before: Row::default() });
        self.find_again(space)
    }

    fn find_again<S: Store>(&mut self, space: &mut Space<S>) -> Result<(), StoreError> {
        self.known.clear();
        for (at, touch) in self.touches.iter_mut().enumerate().skip(self.open) {
            let Touch::Row { name, spot, .. } = touch else { continue };
            *spot = space.spot(name)?;
            let number = spot.number();
            self.known.insert_unique(hash(number), (number, at), |(known, _)| hash(*known));
        }
        Ok(())
    }

    /// A point to go back to.
    pub(crate) fn point(&self) -> Point {
        Point { touches: self.touches.len(), further: self.further.len(), bytes: self.bytes }
    }

    /// Whether anything was changed since.
    pub(crate) fn changed_since(&self, point: Point) -> bool {
        self.touches.len() > point.touches || self.further.len() > point.further
    }

    /// Bytes of names and payloads since then, in the commit that was open.
    pub(crate) fn bytes_since(&self, point: Point) -> usize {
        self.bytes.saturating_sub(point.bytes)
    }

    /// Bytes of names and payloads of the open commit.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// There is no going back to points after this one: what touched rows were in between is forgotten.
    pub(crate) fn release(&mut self, point: Point) {
        let again = |further: &mut Further| matches!(further.which, Which::Again(_));
        self.further.extract_if(point.further.., again).for_each(drop);
    }

    /// Puts rows back to what they were, the latest change first. After an error the rest is not done.
    pub(crate) fn undo<S: Store>(
        &mut self,
        to: Point,
        space: &mut Space<S>,
    ) -> Result<(), StoreError> {
        while self.changed_since(to) {
            let touches = self.touches.len();
            let (name, before) = if let Some(last) =
                self.further.pop_if(|last| last.after >= touches)
            {
                match last.which {
                    Which::Other(name) => (name, last.before),
                    Which::Whole(whole) => {
                        space.restore(*whole)?;
                        self.find_again(space)?;
                        continue;
                    }
                    Which::Again(touch) => match self.touches.get(touch) {
                        Some(Touch::Row { name, .. }) => (name.clone(), last.before),
                        _ => continue,
                    },
                }
            } else if let Some(Touch::Row { name, spot, before }) = self.touches.pop() {
                let number = spot.number();
                if let Ok(entry) = self.known.find_entry(hash(number), |(it, _)| *it == number) {
                    entry.remove();
                }
                (name, before)
            } else {
                continue;
            };
            self.may_live(&name);
            // It may lie elsewhere by now.
            let spot = space.spot(&name)?;
            space.replace(&name, spot, before)?;
        }
        self.open = self.open.min(self.touches.len());
        self.bytes = to.bytes;
        self.cleared.retain(|_, cleared| cleared.touches <= to.touches);
        Ok(())
    }

    /// Goes back to before the tick.
    pub(crate) fn undo_all<S: Store>(&mut self, space: &mut Space<S>) -> Result<(), StoreError> {
        self.undo(Point { touches: 0, further: 0, bytes: 0 }, space)
    }

    /// Closes the open commit: one effect per touch. `None` if nothing has changed; then its dots have not
    /// been given.
    pub(crate) fn close<S: Store>(&mut self, space: &Space<S>) -> Option<EncodedCommit> {
        if self.is_empty() {
            return None;
        }
        let touches = &self.touches[self.open..];
        let size = self.bytes + 32 * touches.len();
        let mut encoder = Encoder::new(self.origin, self.first, self.stamp, size);
        let mut changes = false;
        let mut previous = None;
        for touch in touches {
            match touch {
                Touch::Row { name, spot, before } => {
                    let delta = space.look(*spot).diff(before, encoder.dot());
                    changes |= !delta.is_nothing();
                    encoder.row(name, &delta, previous);
                    previous = Some(name);
                }
                Touch::Clear(clear) => {
                    changes = true;
                    encoder.clear(clear);
                }
            }
        }
        self.open = self.touches.len();
        self.known.clear();
        self.bytes = 0;
        self.cleared.clear();
        changes.then(|| encoder.finish())
    }

    /// The tick is over.
    pub(crate) fn forget(&mut self) {
        if self.touches.capacity().max(self.further.capacity()) > KEPT {
            *self = Draft::default();
        }
        self.touches.clear();
        self.further.clear();
        self.known.clear();
        self.cleared.clear();
        (self.open, self.bytes) = (0, 0);
    }
}
