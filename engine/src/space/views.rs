//! The views: what follows a change of a key that others derive from.
//!
//! A change of visible members flows through the graph once, sources first, as weighted changes (Budiu et
//! al., "DBSP", 2023). What a binding row changes in the graph is computed anew, and nothing else.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::building::Progress;
use super::follow::{Flip, KeyChange};
use super::stored::{Stored, is_unreadable};
use super::{Counted, Outcome, Space, Step, corrupt, whole};
use crate::codec::{Reader, Writer};
use crate::crdt::set::SET;
use crate::dataflow::Change;
use crate::dataflow::graph::{Graph, Target};
use crate::name::{Cursor, RowKey, Slot};
use crate::open::Place;
use crate::row::Row;
use crate::store::{Family, Store, StoreError, keys};

/// To compute a view anew costs as much as to change so many weights, beside its elements.
const COMPUTED: usize = 32;

impl<S: Store> Space<S> {
    /// Lets the views that derive from a key follow a change of it; `after` is what the key shows now. After
    /// an error nothing has followed.
    pub(super) fn feed_views(&mut self, change: KeyChange<'_>, after: Option<Slot>) -> Outcome<()> {
        let KeyChange { db, key, record, .. } = change;
        if self.graph.is_empty() || self.headers[record].derived.is_some() {
            return Ok(());
        }
        let source = (db, Bytes::copy_from_slice(key));
        if !self.graph.is_source(&source) {
            return Ok(());
        }
        let flown = self.flow_from(&source, change, after);
        if !is_unreadable(&flown) {
            return flown;
        }
        // What cannot be read may be of a view, which needs it no more than anybody else does.
        self.step_back();
        let affected = self.graph.fed_by(&source);
        self.compute_anew(&affected)
    }

    fn flow_from(
        &mut self,
        source: &Target,
        key: KeyChange<'_>,
        after: Option<Slot>,
    ) -> Outcome<()> {
        let KeyChange { record, before, flips, .. } = key;
        let change = |(element, weight): Flip| Change { element, weight };
        let is_fed = |shown: Option<Slot>| shown == Some(SET);
        let changes = match (is_fed(before.visible), is_fed(after)) {
            (true, true) => flips.into_iter().map(change).collect(),
            (false, false) => Vec::new(),
            (was_shown, _) => {
                // The slot as a whole came into sight or went out of it: all of its members with it.
                let mut weights: BTreeMap<Bytes, i64> = BTreeMap::new();
                let hidden = self.headers[record].hidden;
                self.visit_rows(source.0, &source.1, SET, Cursor::START, &mut |member, row| {
                    if row.is_visible(hidden) {
                        weights.insert(Bytes::copy_from_slice(member), 1);
                    }
                    ControlFlow::Continue(())
                })?;
                if was_shown {
                    // Members that were there before: those of now, less what this change brought.
                    for (member, weight) in flips {
                        *weights.entry(member).or_insert(0) -= weight;
                    }
                    weights.values_mut().for_each(|weight| *weight = -*weight);
                }
                weights.retain(|_, weight| *weight != 0);
                weights.into_iter().map(change).collect()
            }
        };
        self.flow(source.clone(), changes)
    }

    /// Sends changes of a source through the graph by rank: what reaches a target by several ways reaches it
    /// together, and once. Cost: the changes that each target sees.
    fn flow(&mut self, source: Target, changes: Vec<Change>) -> Outcome<()> {
        let mut open: BTreeMap<(u32, Target), BTreeMap<Bytes, i64>> = BTreeMap::new();
        let mut emitted = (source, changes);
        loop {
            let (source, changes) = emitted;
            if !changes.is_empty() {
                for (place, input) in self.graph.feeds_by_rank(&source) {
                    let Some(node) = self.graph.node(&place.1) else { continue };
                    let mut out = Vec::new();
                    let building = self.building.of(&place.1);
                    let takes = |change: &&Change| {
                        building.is_none_or(|progress| {
                            let is_read = progress.has(input, &change.element);
                            #[cfg(feature = "planted")]
                            let is_read = self.planted.takes(is_read);
                            is_read
                        })
                    };
                    let taken = changes.iter().filter(takes);
                    taken.for_each(|change| node.step(input, change, &mut out));
                    let net = open.entry(place).or_default();
                    for Change { element, weight } in out {
                        *net.entry(element).or_default() += weight;
                    }
                }
            }
            let Some(((_, target), net)) = open.pop_first() else { return Ok(()) };
            let changed = net.into_iter().filter(|(_, weight)| *weight != 0);
            let changes = changed.map(|(element, weight)| Change { element, weight }).collect();
            let shown = self.add_weights(&target, changes)?;
            emitted = (target, shown);
        }
    }

    /// Adds weights to the elements of a derived key; what came into sight or went out of it is returned.
    pub(super) fn add_weights(
        &mut self,
        target: &Target,
        changes: Vec<Change>,
    ) -> Outcome<Vec<Change>> {
        let (db, key) = target;
        let header = self.header(*db, key)?;
        let Some(mut elements) = self.headers[header].derived else { return Ok(Vec::new()) };
        let mut shown = Vec::new();
        self.flown += changes.len();
        for Change { element, weight } in changes {
            let place = self.weight_place(*db, key, &element)?;
            self.derived.pin(place);
            let old = self.derived[place];
            let new = old.checked_add_signed(weight).ok_or_else(|| {
                StoreError::Corrupt("a derived element has a negative weight".into())
            })?;
            self.derived[place] = new;
            self.steps.push(Step::Weight(place, old));
            if (old > 0) != (new > 0) {
                self.note_change(*db, key);
                let weight = if new > 0 { 1 } else { -1 };
                elements = elements + u64::from(new > 0) - u64::from(old > 0);
                shown.push(Change { element, weight });
            }
        }
        self.set_derived(target, Some(elements))?;
        Ok(shown)
    }

    fn set_derived(&mut self, target: &Target, elements: Option<u64>) -> Outcome<()> {
        let (db, key) = target;
        let place = self.header(*db, key)?;
        if self.headers[place].derived == elements {
            return Ok(());
        }
        self.headers.pin(place);
        let old = self.set_elements(*db, place, elements);
        self.steps.push(Step::Elements(*db, place, old));
        Ok(())
    }

    pub(super) fn set_elements(
        &mut self,
        db: u16,
        place: Place,
        elements: Option<u64>,
    ) -> Option<u64> {
        let before = Counted::of(&self.headers[place]);
        let old = std::mem::replace(&mut self.headers[place].derived, elements);
        let after = Counted::of(&self.headers[place]);
        self.recount(db, before, after);
        old
    }

    /// Takes back what a change has done to views so far.
    pub(super) fn step_back(&mut self) {
        while let Some(step) = self.steps.pop() {
            match step {
                Step::Weight(place, old) => self.derived[place] = old,
                Step::Elements(db, place, old) => drop(self.set_elements(db, place, old)),
                Step::Began(target) => self.set_building(&target, None),
                Step::Emptied(emptied) => {
                    if self.fill_view(emptied).is_err() {
                        self.tear();
                    }
                }
            }
        }
    }

    pub(super) fn replace_binding(&mut self, row: &RowKey, mut new: Row) -> Outcome<Row> {
        let hash = self.hash(row, &new);
        new.keep_hash(hash);
        let counts = !new.counters().is_empty();
        let target = (row.db, row.key.clone());
        let (old, changed) = self.set_binding(&target, new);
        let affected = self.graph.downstream(&changed);
        if let Err(error) = self.compute_anew(&affected) {
            self.set_binding(&target, old);
            return Err(error);
        }
        let old_hash = self.kept_hash(row, &old);
        let (was, is) = ((old_hash, !old.counters().is_empty()), (hash, counts));
        whole::at(&mut self.sums, row.db).change(was, is);
        Ok(old)
    }

    /// Puts a binding row in place of the one that its target has, which is returned, and whose results are
    /// others now.
    fn set_binding(&mut self, target: &Target, row: Row) -> (Row, Vec<Target>) {
        let changed = self.graph.change(target, &row);
        (self.put_binding(target, row), changed)
    }

    /// Stores a binding row in place of the one that its target has, which is returned.
    pub(super) fn put_binding(&mut self, target: &Target, row: Row) -> Row {
        let mut stored = Writer::new();
        let is_there = !row.is_empty();
        row.save(&mut stored, &mut self.resident.origins);
        self.note(keys::binding(target.0, &target.1), is_there.then(|| stored.into_vec()));
        let old = match is_there {
            true => self.bindings.insert(target.clone(), row),
            false => self.bindings.remove(target),
        };
        old.unwrap_or_default()
    }

    /// Computes anew what derives from a key of which rows were given up.
    pub(super) fn refeed(&mut self, source: &Target) -> Outcome<()> {
        let affected = self.graph.fed_by(source);
        self.whole(|space| space.compute_anew(&affected))
    }

    /// Computes the elements of some targets, sources first, as the graph has them now.
    fn compute_anew(&mut self, affected: &[Target]) -> Outcome<()> {
        self.flown += affected.len() * COMPUTED;
        for target in affected {
            self.empty_view(target)?;
        }
        for target in affected {
            let Some(node) = self.graph.node(target) else { continue };
            node.begin();
            let sources = node.definition.sources.clone();
            self.set_derived(target, Some(0))?;
            if self.is_long(target)? {
                self.set_building(target, Some(Progress::default()));
                self.steps.push(Step::Began(target.clone()));
                continue;
            }
            for (input, source) in sources.iter().enumerate() {
                let mut elements = Vec::new();
                self.visit_elements(target.0, source, Cursor::START, &mut |element| {
                    elements.push(Bytes::copy_from_slice(element));
                    ControlFlow::Continue(())
                })?;
                let mut out = Vec::new();
                if let Some(node) = self.graph.node(target) {
                    for element in elements {
                        node.step(input, &Change { element, weight: 1 }, &mut out);
                    }
                }
                self.add_weights(target, out)?;
            }
        }
        Ok(())
    }

    pub(super) fn load_bindings(&mut self) -> Outcome<()> {
        let mut bindings = BTreeMap::new();
        let mut failed = None;
        let from = [keys::BINDING];
        self.resident.store.scan(
            Family::System,
            &from,
            &keys::prefix_end(&from),
            &mut |key, value| {
                let row = Row::load(Reader::new(value), &self.resident.origins);
                match (keys::split_name(&key[1..]), row) {
                    (Some((db, key)), Ok(row)) => {
                        bindings.insert((db, Bytes::copy_from_slice(key)), row);
                        ControlFlow::Continue(())
                    }
                    (_, row) => {
                        failed = Some(row.err());
                        ControlFlow::Break(())
                    }
                }
            },
        )?;
        match failed {
            Some(Some(error)) => return Err(error),
            Some(None) => return corrupt("binding"),
            None => {}
        }
        self.graph = Graph::build(&bindings);
        self.bindings = bindings;
        Ok(())
    }
}
