//! Views that are built in slices: those over much, which would stop everybody.
//!
//! A view whose sources have many elements is *building* at first. Between ticks its sources are read, one
//! after the other and each in the order of places, and what is read flows into it. A change of a source
//! flows into a view that is building if its element lies before the place that was read up to, and otherwise
//! not: it will be read. (Both are one step, so an element counts once.) What derives from a view that is
//! building waits for it. Until it is complete a view answers nobody.
//!
//! Which views are building is stored with the rows, and a start begins them anew.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Outcome, Space, Step};
use crate::codec::{CodecError, Reader, Writer};
use crate::crdt::set::SET;
use crate::dataflow::Change;
use crate::dataflow::graph::{Graph, Target};
use crate::name::Cursor;
use crate::open::Place;
use crate::pages::{Epoch, TreeId};
use crate::store::{Family, Store, StoreError, keys};

const FORMAT: u8 = 1;

/// How far a view is built.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// The source that is being read; those before it have been.
    input: usize,
    /// The place that it was read up to.
    place: Cursor,
    /// Elements read.
    read: u64,
    /// It cannot be read.
    failed: bool,
}

impl Progress {
    /// Whether an element of a source has been read.
    pub(super) fn has(&self, input: usize, element: &[u8]) -> bool {
        input < self.input || (input == self.input && Cursor::of(element) < self.place)
    }
}

/// The views that are building.
#[derive(Debug, Default)]
pub(super) struct Building {
    views: BTreeMap<Target, Progress>,
    /// The one that is next: all of its sources are complete.
    next: Option<Target>,
    /// The store may have a list of some.
    is_stored: bool,
}

/// A view as it was before it was emptied.
#[derive(Debug)]
pub(crate) struct Emptied {
    target: Target,
    /// Its elements in memory.
    tree: Option<(TreeId, Epoch)>,
    elements: Option<u64>,
    progress: Option<Progress>,
}

impl Building {
    pub(super) fn of(&self, target: &Target) -> Option<Progress> {
        if self.views.is_empty() { None } else { self.views.get(target).copied() }
    }

    /// Finds the one that is next.
    fn find_next(&mut self, graph: &Graph) -> Option<Target> {
        if self.next.is_none() {
            let waits = |target: &Target| {
                let sources = graph.node(target).map(|node| &node.definition.sources);
                let mut sources = sources.into_iter().flatten();
                sources.any(|source| self.views.contains_key(&(target.0, source.clone())))
            };
            let mut open = self.views.iter().filter(|(_, progress)| !progress.failed);
            let next = open.find(|(target, _)| !waits(target));
            self.next = next.map(|(target, _)| target.clone());
        }
        self.next.clone()
    }
}

impl<S: Store> Space<S> {
    /// Of a view that is being built: how much of its sources was read, in percent.
    pub(crate) fn building(&mut self, target: &Target) -> Outcome<Option<u64>> {
        let Some(progress) = self.building.of(target) else { return Ok(None) };
        let all = self.elements_of_sources(target)?;
        Ok(Some((progress.read.saturating_mul(100) / all.max(1)).min(99)))
    }

    /// The views of a db that are being built.
    pub(crate) fn building_of(&self, db: u16) -> Vec<Target> {
        self.building.views.keys().filter(|target| target.0 == db).cloned().collect()
    }

    /// How many views are being built.
    pub(crate) fn views_building(&self) -> usize {
        self.building.views.len()
    }

    /// Whether an element of that source has reached a view, as far as building it goes.
    pub(crate) fn has_reached(&self, target: &Target, input: usize, element: &[u8]) -> bool {
        self.building.of(target).is_none_or(|progress| progress.has(input, element))
    }

    fn elements_of_sources(&mut self, target: &Target) -> Outcome<u64> {
        let sources = self.graph.node(target).map(|node| node.definition.sources.clone());
        let mut all = 0u64;
        for source in sources.into_iter().flatten() {
            let place = self.header(target.0, &source)?;
            let header = &self.headers[place];
            all = all.saturating_add(header.derived.unwrap_or_else(|| header.rows(SET)));
        }
        Ok(all)
    }

    /// Whether a view is to be built in slices: it has many sources to read, or one that is not complete.
    pub(super) fn is_long(&mut self, target: &Target) -> Outcome<bool> {
        let sources = self.graph.node(target).map(|node| node.definition.sources.clone());
        let of = |source: Bytes| (target.0, source);
        if sources.into_iter().flatten().any(|source| self.building.of(&of(source)).is_some()) {
            return Ok(true);
        }
        Ok(self.elements_of_sources(target)? > self.at_once)
    }

    /// How far a view is built, `None` for all of it.
    pub(super) fn set_building(&mut self, target: &Target, progress: Option<Progress>) {
        match progress {
            Some(progress) => drop(self.building.views.insert(target.clone(), progress)),
            None => drop(self.building.views.remove(target)),
        }
        self.building.next = None;
    }

    /// The record of the views that are building, for a generation; `None` if the store has none and needs
    /// none.
    pub(super) fn building_record(&mut self) -> Option<Writer> {
        let views = &self.building.views;
        if !std::mem::replace(&mut self.building.is_stored, !views.is_empty()) && views.is_empty() {
            return None;
        }
        let mut record = Writer::with_format(FORMAT);
        record.varint(views.len() as u64);
        for (db, key) in views.keys() {
            record.u16(*db);
            record.bytes(key);
        }
        Some(record)
    }

    /// A generation could not be written: nobody knows what the store has.
    pub(super) fn forget_building_record(&mut self) {
        self.building.is_stored = true;
    }

    /// Empties a view, so that it is none any more, until it is built: O(1). Of a key that is no view nothing
    /// is done.
    pub(super) fn empty_view(&mut self, target: &Target) -> Outcome<()> {
        let place = self.header(target.0, &target.1)?;
        if self.headers[place].derived.is_some() || self.building.of(target).is_some() {
            let emptied = self.take_view(target, None)?;
            self.steps.push(Step::Emptied(emptied));
        }
        Ok(())
    }

    /// Takes all elements of a view away, and what was to be built of it, so that it shows so many: O(1).
    pub(super) fn take_view(&mut self, target: &Target, shows: Option<u64>) -> Outcome<Emptied> {
        let place = self.forget_weights(target)?;
        let tree = self.take_away(Family::Derived, &element_prefix(target));
        let elements = self.set_elements(target.0, place, shows);
        let progress = self.building.of(target);
        self.set_building(target, None);
        Ok(Emptied { target: target.clone(), tree, elements, progress })
    }

    /// Undoes that.
    pub(super) fn fill_view(&mut self, emptied: Emptied) -> Outcome<()> {
        let Emptied { target, tree, elements, progress } = emptied;
        let place = self.forget_weights(&target)?;
        self.take_back(Family::Derived, &element_prefix(&target), tree);
        self.set_elements(target.0, place, elements);
        self.set_building(&target, progress);
        Ok(())
    }

    /// Opens the record of a view to be changed; weights are looked for again, whose places nobody holds
    /// between changes.
    fn forget_weights(&mut self, target: &Target) -> Outcome<Place> {
        self.resident.pack(&mut self.derived);
        self.derived.clear();
        let place = self.header(target.0, &target.1)?;
        self.headers.pin(place);
        Ok(place)
    }

    /// Between ticks: reads so many elements more into the view that is next. True if there is more to do. Of
    /// one that cannot be read nothing more is read, until a start.
    pub(crate) fn build(&mut self, elements: usize) -> Outcome<bool> {
        let Some(target) = self.building.find_next(&self.graph) else { return Ok(false) };
        let built = self.whole(|space| space.build_slice(&target, elements));
        self.steps.clear();
        self.close();
        match built {
            Err(StoreError::Corrupt(_)) => {
                if let Some(progress) = self.building.views.get_mut(&target) {
                    progress.failed = true;
                }
                self.building.next = None;
            }
            built => built?,
        }
        Ok(self.building.find_next(&self.graph).is_some())
    }

    fn build_slice(&mut self, target: &Target, elements: usize) -> Outcome<()> {
        let node = self.graph.node(target).zip(self.building.of(target));
        let Some((node, mut progress)) = node else {
            self.set_building(target, None);
            return Ok(());
        };
        let inputs = node.definition.sources.len();
        let Some(source) = node.definition.sources.get(progress.input).cloned() else {
            self.set_building(target, None);
            return Ok(());
        };
        let mut read: Vec<Bytes> = Vec::new();
        let mut end = None;
        let mut last = progress.place;
        self.visit_elements(target.0, &source, progress.place, &mut |element| {
            let place = Cursor::of(element);
            if read.len() >= elements && place != last {
                end = Some(place);
                return ControlFlow::Break(());
            }
            last = place;
            read.push(Bytes::copy_from_slice(element));
            ControlFlow::Continue(())
        })?;
        let mut out = Vec::new();
        progress.read += read.len() as u64;
        if let Some(node) = self.graph.node(target) {
            for element in read {
                node.step(progress.input, &Change { element, weight: 1 }, &mut out);
            }
        }
        // Whatever derives from it has not begun.
        self.add_weights(target, out)?;
        match end {
            Some(place) => progress.place = place,
            None => (progress.input, progress.place) = (progress.input + 1, Cursor::START),
        }
        let complete = progress.input >= inputs;
        if complete {
            self.set_building(target, None);
        } else if let Some(known) = self.building.views.get_mut(target) {
            *known = progress;
        }
        Ok(())
    }

    /// At a start: views that were building begin anew.
    pub(super) fn load_building(&mut self) -> Outcome<()> {
        let Some(record) = self.resident.store.get(Family::System, keys::BUILDING)? else {
            return Ok(());
        };
        let listed =
            decode(&record).map_err(|error| StoreError::corrupt("list of views", error))?;
        for target in listed {
            let is_bound = self.graph.node(&target).is_some();
            self.take_view(&target, is_bound.then_some(0))?;
            self.set_building(&target, is_bound.then(Progress::default));
        }
        self.close();
        Ok(())
    }
}

fn element_prefix((db, key): &Target) -> Vec<u8> {
    let mut prefix = Vec::new();
    keys::element_prefix(&mut prefix, *db, key);
    prefix
}

fn decode(record: &[u8]) -> Result<Vec<Target>, CodecError> {
    let mut input = Reader::with_format(record, FORMAT)?;
    let mut listed = Vec::new();
    for _ in 0..input.count(3)? {
        listed.push((input.u16()?, Bytes::copy_from_slice(input.bytes()?)));
    }
    input.end()?;
    Ok(listed)
}
