//! The list of deadlines to come, in the order of time.
//!
//! The list lies in the store, and what the store lacks of it with the other changes of `system`. The
//! earliest entries are in memory, in a *window*: so what is due is found without a look into the store,
//! where the removed entries of before would be passed over again and again. When the window is used up it
//! is filled from where it ended. Each entry enters it once, so a deadline costs the same however many there
//! are.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Outcome, Space};
use crate::causal::Millis;
use crate::dataflow::graph::Target;
use crate::store::{Family, Store, keys, scan_on};

/// Entries that are read at once; the window has twice as many at most.
const WINDOW: usize = 1 << 13;

/// The earliest deadlines that have not been processed, as their keys in `system`.
pub(super) struct Due {
    window: BTreeSet<Vec<u8>>,
    /// What lies at this key or behind it is not in the window; `None`: there is no more.
    end: Option<Vec<u8>>,
    /// What the tick has taken off the list.
    taken: Vec<Vec<u8>>,
}

impl Default for Due {
    fn default() -> Due {
        Due { window: BTreeSet::new(), end: Some(vec![keys::DEADLINE]), taken: Vec::new() }
    }
}

impl Due {
    fn insert(&mut self, key: Vec<u8>) {
        if self.end.as_ref().is_some_and(|end| key >= *end) {
            return;
        }
        self.window.insert(key);
        if self.window.len() > 2 * WINDOW
            && let Some(middle) = self.window.iter().nth(WINDOW).cloned()
        {
            self.window.split_off(&middle);
            self.end = Some(middle);
        }
    }

    /// The earliest deadline, or a time before it, as long as the window is not filled.
    fn next(&self) -> Option<Millis> {
        let first = self.window.first().or(self.end.as_ref())?;
        Some(keys::split_deadline(first).map_or(Millis(0), |(time, _, _)| time))
    }
}

impl<S: Store> Space<S> {
    /// Puts a deadline on the list.
    pub(super) fn list_deadline(&mut self, time: Millis, db: u16, key: &[u8]) {
        let key = keys::deadline(time, db, key);
        self.due.insert(key.clone());
        self.system.add(key);
    }

    /// Takes a deadline off the list.
    pub(super) fn unlist_deadline(&mut self, time: Millis, db: u16, key: &[u8]) {
        let key = keys::deadline(time, db, key);
        self.due.window.remove(&key);
        self.system.remove(key);
    }

    /// The earliest deadline of the list.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        self.due.next()
    }

    /// Takes up to `limit` deadlines that lie before `now` off the list, earliest first. Cost: those; at
    /// times the reading of some thousands.
    pub(crate) fn take_due(&mut self, now: Millis, limit: usize) -> Outcome<Vec<Target>> {
        let mut targets = Vec::new();
        self.fill_window()?;
        while targets.len() < limit && self.due.next().is_some_and(|next| next < now) {
            let Some(key) = self.due.window.pop_first() else { break };
            if let Some((_, db, name)) = keys::split_deadline(&key) {
                targets.push((db, Bytes::copy_from_slice(name)));
            }
            self.system.remove(key.clone());
            self.due.taken.push(key);
            self.fill_window()?;
        }
        Ok(targets)
    }

    /// Puts back what the tick has taken off the list.
    pub(super) fn put_due_back(&mut self) {
        for key in std::mem::take(&mut self.due.taken) {
            self.due.insert(key.clone());
            self.note(key, Some(Vec::new()));
        }
    }

    /// The tick has happened.
    pub(super) fn settle_due(&mut self) {
        self.due.taken.clear();
    }

    /// Reads the next part of the list if the window is empty.
    pub(super) fn fill_window(&mut self) -> Outcome<()> {
        while self.due.window.is_empty() {
            let Some(from) = self.due.end.take() else { break };
            let mut window = BTreeSet::new();
            let mut end = None;
            let read = self.visit_deadlines(&from, &mut |key| {
                if window.len() == WINDOW {
                    end = Some(key.to_vec());
                    return ControlFlow::Break(());
                }
                window.insert(key.to_vec());
                ControlFlow::Continue(())
            });
            if let Err(error) = read {
                self.due.end = Some(from);
                return Err(error);
            }
            (self.due.window, self.due.end) = (window, end);
        }
        Ok(())
    }

    /// Visits the entries of the list from a key on, those that can be read.
    fn visit_deadlines(
        &self,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Outcome<()> {
        let to = keys::prefix_end(&[keys::DEADLINE]);
        let mut pending = self.system.changes(from, &to).peekable();
        let mut stopped = false;
        let mut pass = |key: &[u8]| {
            let flow = visit(key);
            stopped |= flow.is_break();
            flow
        };
        let mut holes = Vec::new();
        scan_on(&self.resident.store, Family::System, from, &to, &mut holes, &mut |key, _| {
            while let Some((ours, is_there)) = pending.next_if(|(ours, _)| *ours < key) {
                if is_there {
                    pass(ours)?;
                }
            }
            match pending.next_if(|(ours, _)| *ours == key) {
                Some((_, false)) => ControlFlow::Continue(()),
                _ => pass(key),
            }
        })?;
        if !stopped {
            for (ours, is_there) in pending {
                if is_there && visit(ours).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Visits the whole list, those of its entries that can be read.
    pub(super) fn visit_all_deadlines(
        &self,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Outcome<()> {
        self.visit_deadlines(&[keys::DEADLINE], visit)
    }
}
