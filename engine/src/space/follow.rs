//! What follows a change of a key. Each follower is a method in a file beside this one, and a line in
//! [`Space::follow`].

use bytes::Bytes;

use super::{Counted, Outcome, Space};
use crate::open::Place;
use crate::store::Store;

/// An element that came into sight (+1) or went out of it (-1) in its slot.
pub(super) type Flip = (Bytes, i64);

/// What a step has done to a key, as clients see it. The key's record has it already.
pub(super) struct KeyChange<'c> {
    pub(super) db: u16,
    pub(super) key: &'c [u8],
    /// The key's record.
    pub(super) record: Place,
    /// What the db counted of the key before.
    pub(super) before: Counted,
    /// Changes of elements that views can be derived from.
    pub(super) flips: Vec<Flip>,
    /// Whether a row, or the deadline, is seen to have changed.
    pub(super) seen: bool,
}

impl<S: Store> Space<S> {
    /// Lets all that is derived from the key follow. After an error nothing has followed.
    pub(super) fn follow(&mut self, change: KeyChange<'_>) -> Outcome<()> {
        let after = Counted::of(&self.headers[change.record]);
        let KeyChange { db, key, before, seen, .. } = change;
        // The only one that may fail comes first, and takes back what it did.
        self.feed_views(change, after.visible)?;
        self.recount(db, before, after);
        if seen || before.visible != after.visible {
            self.note_change(db, key);
        }
        Ok(())
    }
}
