//! Deadlines: what they hide, and the list of those to come (MODEL M7).
//!
//! A deadline that was reached by this node's wall clock hides what was written up to it, at once and at
//! every node, before anybody has removed it.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Counted, Flip, Outcome, Space, Unwritten};
use crate::cache::Place;
use crate::causal::Millis;
use crate::commit::RowKey;
use crate::crdt::Slot;
use crate::dataflow::graph::Target;
use crate::row::Row;
use crate::store::{Family, Store, keys};

impl<S: Store> Space<S> {
    pub(super) fn replace_deadline(
        &mut self,
        row: &RowKey,
        place: Place,
        new: Row,
        flips: &mut Vec<Flip>,
    ) -> Outcome<Row> {
        if let Some(time) = self.headers[place].expires() {
            self.note(keys::deadline(time, row.db, &row.key), None);
        }
        let old = self.headers[place].set_deadline(new);
        if let Some(time) = self.headers[place].expires() {
            self.list_deadline(time, row.db, &row.key);
        }
        self.set_hidden(row.db, &row.key, place, flips)?;
        Ok(old)
    }

    /// Puts a deadline on the list of those to come.
    fn list_deadline(&mut self, time: Millis, db: u16, key: &[u8]) {
        self.note(keys::deadline(time, db, key), Some(Vec::new()));
        self.next_deadline = Some(self.next_deadline.map_or(time, |next| next.min(time)));
    }

    /// What the key's deadline hides by now.
    fn hidden_at(&self, place: Place) -> Millis {
        let hidden = self.headers[place].hidden_at(self.now);
        #[cfg(feature = "planted")]
        let hidden = self.planted.hidden(hidden, self.now);
        hidden
    }

    /// Hides what the key's deadline hides by now, or shows again what it no longer does.
    fn set_hidden(
        &mut self,
        db: u16,
        key: &[u8],
        place: Place,
        flips: &mut Vec<Flip>,
    ) -> Outcome<()> {
        let (was, is) = (self.headers[place].hidden, self.hidden_at(place));
        if was == is {
            return Ok(());
        }
        self.headers[place].hidden = is;
        if is == Millis(0)
            && let Some(time) = self.headers[place].expires()
        {
            // Shown again (a restart with an earlier clock), so it has to pass again.
            self.list_deadline(time, db, key);
        }
        let slots: Vec<Slot> = self.headers[place].slots.iter().map(|state| state.slot).collect();
        for slot in slots {
            let mut rows = 0;
            self.visit_rows(db, key, slot, &mut |member, row| {
                let (before, after) = (row.is_visible(was), row.is_visible(is));
                rows += u64::from(after);
                if before != after && slot == Slot::Set {
                    flips.push((Bytes::copy_from_slice(member), if after { 1 } else { -1 }));
                }
                ControlFlow::Continue(())
            })?;
            self.headers[place].slot_mut(slot).rows = rows;
        }
        Ok(())
    }

    /// Judges the key's deadline by the tick's wall clock. What is due by then is hidden afterwards.
    pub(crate) fn hide_due(&mut self, db: u16, key: &[u8]) -> Outcome<Place> {
        let place = self.header(db, key)?;
        if self.hidden_at(place) != self.headers[place].hidden {
            self.whole(|space| {
                space.headers.pin(place);
                let before = Counted::of(&space.headers[place]);
                let mut flips = Vec::new();
                space.set_hidden(db, key, place, &mut flips)?;
                let gone = before.visible.is_some() && space.headers[place].visible().is_none();
                space.expired += u64::from(gone);
                space.note_change(db, key);
                space.follow(db, key, place, before, flips)
            })?;
        }
        Ok(place)
    }

    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        self.next_deadline
    }

    /// Takes up to `limit` deadlines that lie before `now` off the list, earliest first.
    pub(crate) fn take_due(&mut self, now: Millis, limit: usize) -> Outcome<Vec<Target>> {
        if self.next_deadline.is_none_or(|next| next >= now) {
            return Ok(Vec::new());
        }
        let mut due = Vec::new();
        self.visit_deadlines(&mut |key| match keys::split_deadline(key) {
            Some((time, db, name)) if time < now && due.len() < limit => {
                due.push((key.to_vec(), (db, Bytes::copy_from_slice(name))));
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        })?;
        let mut targets = Vec::with_capacity(due.len());
        for (key, target) in due {
            self.note(key.clone(), None);
            self.taken.push(key);
            targets.push(target);
        }
        self.find_next_deadline()?;
        Ok(targets)
    }

    pub(super) fn find_next_deadline(&mut self) -> Outcome<()> {
        let mut next = None;
        self.visit_deadlines(&mut |key| {
            next = keys::split_deadline(key).map(|(time, _, _)| time);
            ControlFlow::Break(())
        })?;
        self.next_deadline = next;
        Ok(())
    }

    pub(super) fn visit_deadlines(
        &self,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Outcome<()> {
        let from = vec![keys::DEADLINE];
        let to = keys::prefix_end(&from);
        let mut pending = self.system.range(from.clone()..to.clone()).peekable();
        let mut stopped = false;
        let mut pass = |key: &[u8]| {
            let flow = visit(key);
            stopped |= flow.is_break();
            flow
        };
        self.store.scan(Family::System, &from, &to, &mut |key, _| {
            while let Some((ours, change)) = pending.next_if(|(ours, _)| ours.as_slice() < key) {
                if change.row.is_some() {
                    pass(ours)?;
                }
            }
            match pending.next_if(|(ours, _)| ours.as_slice() == key) {
                Some((_, Unwritten { row: None, .. })) => ControlFlow::Continue(()),
                _ => pass(key),
            }
        })?;
        if !stopped {
            for (ours, change) in pending {
                if change.row.is_some() && visit(ours).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }
}
