//! Deadlines: what they hide (MODEL M7).
//!
//! A deadline that was reached by this node's wall clock hides what was written up to it, at once and at
//! every node, before anybody has removed it.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::follow::{Flip, KeyChange};
use super::{Counted, Outcome, Space};
use crate::causal::Millis;
use crate::name::{Cursor, RowKey, Slot};
use crate::open::Place;
use crate::row::Row;
use crate::store::Store;

/// What a deadline hides of a key: what was written up to then, which leaves so many visible rows.
pub(super) struct Hiding {
    until: Millis,
    rows: Vec<(Slot, u64)>,
}

impl<S: Store> Space<S> {
    /// Puts a row of decisions in place of the one that is there, which is returned, and what was hidden
    /// before if that has changed. After an error nothing is changed.
    pub(super) fn replace_deadline(
        &mut self,
        row: &RowKey,
        place: Place,
        new: Row,
        flips: &mut Vec<Flip>,
    ) -> Outcome<(Row, Option<Hiding>)> {
        let ended = self.headers[place].expires();
        let old = self.headers[place].set_deadline(new);
        match self.set_hidden(row.db, &row.key, place, flips) {
            Ok(hiding) => {
                self.relist(row, ended, place);
                Ok((old, hiding))
            }
            Err(error) => {
                self.headers[place].set_deadline(old);
                Err(error)
            }
        }
    }

    /// Undoes [`replace_deadline`](Space::replace_deadline).
    pub(super) fn put_deadline_back(
        &mut self,
        row: &RowKey,
        place: Place,
        old: Row,
        hiding: Option<Hiding>,
    ) {
        let ended = self.headers[place].expires();
        self.headers[place].set_deadline(old);
        self.relist(row, ended, place);
        self.hide_again(place, hiding);
    }

    /// Lists the key's deadline in place of the one that it had.
    fn relist(&mut self, row: &RowKey, old: Option<Millis>, place: Place) {
        if let Some(time) = old {
            self.unlist_deadline(time, row.db, &row.key);
        }
        if let Some(time) = self.headers[place].expires() {
            self.list_deadline(time, row.db, &row.key);
        }
    }

    /// What the key's deadline hides by now.
    fn hidden_at(&self, place: Place) -> Millis {
        let hidden = self.headers[place].hidden_at(self.now);
        #[cfg(feature = "planted")]
        let hidden = self.planted.hidden(hidden, self.now);
        hidden
    }

    /// Hides what the key's deadline hides by now, or shows again what it no longer does. What was hidden
    /// before is returned, if that has changed. After an error nothing is changed.
    fn set_hidden(
        &mut self,
        db: u16,
        key: &[u8],
        place: Place,
        flips: &mut Vec<Flip>,
    ) -> Outcome<Option<Hiding>> {
        let (was, is) = (self.headers[place].hidden, self.hidden_at(place));
        if was == is {
            return Ok(None);
        }
        let slots: Vec<Slot> = self.headers[place].slots.iter().map(|state| state.slot).collect();
        let mut hiding = Hiding { until: is, rows: Vec::with_capacity(slots.len()) };
        for slot in slots {
            let mut rows = 0;
            self.visit_rows(db, key, slot, Cursor::START, &mut |member, row| {
                let (before, after) = (row.is_visible(was), row.is_visible(is));
                rows += u64::from(after);
                if before != after && self.types.has_elements(slot) {
                    flips.push((Bytes::copy_from_slice(member), if after { 1 } else { -1 }));
                }
                ControlFlow::Continue(())
            })?;
            hiding.rows.push((slot, rows));
        }
        if is == Millis(0)
            && let Some(time) = self.headers[place].expires()
        {
            // Shown again (a restart with an earlier clock), so it has to pass again.
            self.list_deadline(time, db, key);
        }
        Ok(self.hide_again(place, Some(hiding)))
    }

    /// Hides what it says; what was hidden before is returned.
    fn hide_again(&mut self, place: Place, hiding: Option<Hiding>) -> Option<Hiding> {
        let Hiding { until, mut rows } = hiding?;
        let header = &mut self.headers[place];
        for (slot, rows) in &mut rows {
            std::mem::swap(&mut header.slot_mut(*slot).rows, rows);
        }
        Some(Hiding { until: std::mem::replace(&mut header.hidden, until), rows })
    }

    /// Judges the key's deadline by the tick's wall clock. What is due by then is hidden afterwards.
    pub(crate) fn hide_due(&mut self, db: u16, key: &[u8]) -> Outcome<Place> {
        let place = self.header(db, key)?;
        if self.hidden_at(place) != self.headers[place].hidden {
            self.whole(|space| {
                space.headers.pin(place);
                let before = Counted::of(&space.headers[place]);
                let mut flips = Vec::new();
                let hiding = space.set_hidden(db, key, place, &mut flips)?;
                let gone = before.visible.is_some() && space.headers[place].visible().is_none();
                let change = KeyChange { db, key, record: place, before, flips, seen: true };
                if let Err(error) = space.follow(change) {
                    space.hide_again(place, hiding);
                    return Err(error);
                }
                space.expired += u64::from(gone);
                Ok(())
            })?;
        }
        Ok(place)
    }
}
