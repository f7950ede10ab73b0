//! The specification of everything that is kept: computed anew from the rows, and compared.
//!
//! Digest, counts, hiding and views are maintained change by change. Here they are recomputed from
//! scratch, by the shortest code that can be right; tests and the simulator call it at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::causal::Millis;
use crate::crdt::set::SET;
use crate::dataflow::graph::Target;
use crate::dataflow::ops::{self, Operator};
use crate::dataflow::{Change, Definition};
use crate::engine::Engine;
use crate::header::Sums;
use crate::name::{Cursor, Scope, Slot};
use crate::row::Row;
use crate::space::Counted;
use crate::store::{Store, StoreError};

type Elements = BTreeSet<Bytes>;

impl<S: Store> Engine<S> {
    /// Checks everything that is kept against what it is derived from: digest, counts and views. Cost: all
    /// rows. For tests and repair tools; must be called between ticks.
    pub fn verify(&mut self) -> Result<(), String> {
        compare(self).unwrap_or_else(|error| Err(error.to_string()))
    }
}

fn compare<S: Store>(engine: &mut Engine<S>) -> Result<Result<(), String>, StoreError> {
    let space = &mut engine.space;
    let mut digest = 0u128;
    let mut views: BTreeMap<Target, Elements> = BTreeMap::new();
    for db in space.databases()? {
        let mut sums = Sums::default();
        let mut of_slots: BTreeMap<(Bytes, Slot), Sums> = BTreeMap::new();
        for name in space.rows_in(&Scope::Db(db))? {
            let row = space.row(&name)?.clone();
            let is = (space.hash(&name, &row), !row.counters().is_empty());
            sums.change((0, false), is);
            of_slots.entry((name.key, name.slot)).or_default().change((0, false), is);
        }
        digest = digest.wrapping_add(sums.digest);
        if let Some(kept) = space.sums(db).filter(|kept| *kept != sums) {
            return Ok(Err(format!("db {db}: {sums:?}, but kept {kept:?}")));
        }
        let mut keys = Vec::new();
        space.visit_headers(db, Cursor::START, &mut |key, header| {
            keys.push((Bytes::copy_from_slice(key), header.clone()));
            ControlFlow::Continue(())
        })?;
        let visible = keys.iter().filter(|(_, header)| header.visible().is_some()).count() as u64;
        if visible != space.count(db) {
            return Ok(Err(format!(
                "db {db}: {visible} keys are visible, not {}",
                space.count(db)
            )));
        }
        let deadlines = || keys.iter().filter_map(|(_, header)| Counted::of(header).expires);
        let count = deadlines().count() as u64;
        let sum = deadlines().map(|time| u128::from(time.0)).sum::<u128>();
        let mean = Millis(sum.checked_div(u128::from(count)).unwrap_or(0) as u64);
        if space.expires(db, Millis(0)) != (count, mean) {
            let kept = space.expires(db, Millis(0));
            return Ok(Err(format!("db {db}: {count} keys expire, mean {mean:?}, kept {kept:?}")));
        }
        for (key, header) in keys {
            for state in &header.slots {
                let sums = of_slots.remove(&(key.clone(), state.slot)).unwrap_or_default();
                if let Some(kept) = state.sums().filter(|kept| *kept != sums) {
                    let slot = state.slot;
                    return Ok(Err(format!("{db} {key:?}: {slot:?} {sums:?}, but kept {kept:?}")));
                }
                if state.rows > 0 && header.born(state.slot).is_none() {
                    return Ok(Err(format!("{db} {key:?}: {:?} without a birth", state.slot)));
                }
                let (mut rows, mut stored) = (0, 0);
                space.visit_rows(db, &key, state.slot, Cursor::START, &mut |_, row| {
                    rows += u64::from(row.is_visible(header.hidden));
                    stored += u64::from(!row.is_empty());
                    ControlFlow::Continue(())
                })?;
                if (rows, stored) != (state.rows, state.stored) {
                    let kept = (state.rows, state.stored);
                    return Ok(Err(format!(
                        "{db} {key:?}: {:?} but kept {kept:?}",
                        (rows, stored)
                    )));
                }
            }
            let mut elements = Elements::new();
            space.visit_elements(db, &key, Cursor::START, &mut |element| {
                elements.insert(Bytes::copy_from_slice(element));
                ControlFlow::Continue(())
            })?;
            if header.visible() == Some(SET) {
                let counted = header.derived.unwrap_or_else(|| header.rows(SET));
                if counted != elements.len() as u64 {
                    return Ok(Err(format!("{db} {key:?}: {} members", elements.len())));
                }
            }
            views.insert((db, key), elements);
        }
    }
    if digest != space.digest() {
        return Ok(Err("the digest is not the sum over the rows".into()));
    }
    let in_force = in_force(space.bindings());
    let kept = space.graph().nodes().map(|(target, node)| (target, &node.definition));
    if !kept.eq(in_force.iter().map(|(target, (definition, _))| (target, definition))) {
        return Ok(Err("the bindings in force are not those of the rows".into()));
    }
    for (target, (definition, operator)) in in_force {
        let mut weights: BTreeMap<Bytes, i64> = BTreeMap::new();
        for (input, source) in definition.sources.iter().enumerate() {
            for element in views.get(&(target.0, source.clone())).into_iter().flatten() {
                if !space.has_reached(&target, input, element) {
                    continue;
                }
                let mut out = Vec::new();
                operator.step(input, &Change { element: element.clone(), weight: 1 }, &mut out);
                for change in out {
                    *weights.entry(change.element).or_insert(0) += change.weight;
                }
            }
        }
        for (element, weight) in &weights {
            let kept = space.weight(target.0, &target.1, element)?;
            if kept != *weight as u64 {
                return Ok(Err(format!("{target:?}: {element:?} weighs {weight}, kept {kept}")));
            }
        }
        let wanted: Elements = weights.into_keys().collect();
        let kept = views.get(&target).cloned().unwrap_or_default();
        if kept != wanted {
            return Ok(Err(format!("{target:?} is {kept:?}, recomputed {wanted:?}")));
        }
    }
    Ok(Ok(()))
}

pub(crate) type InForce = BTreeMap<Target, (Definition, Box<dyn Operator>)>;

/// The bindings in force: winners in the order of their stamps, but for those that would close a cycle with
/// those before, and those that cannot be built.
pub(crate) fn in_force(bindings: &BTreeMap<Target, Row>) -> InForce {
    let winner = |(target, row): (&Target, &Row)| {
        let winner = row.winner(Millis(0))?;
        let definition = Definition::decode(&winner.payload).ok()?;
        Some((winner.stamp.hlc, winner.dot.origin, target.clone(), definition))
    };
    let mut winners: Vec<_> = bindings.iter().filter_map(winner).collect();
    winners.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
    let mut admitted = InForce::new();
    for (_, _, target, definition) in winners {
        let operator =
            ops::operator(&definition.operator).map(|record| (record.build)(&definition));
        let Some(Ok(operator)) = operator else { continue };
        let mut above: Elements = definition.sources.iter().cloned().collect();
        loop {
            let of = |key: &Bytes| admitted.get(&(target.0, key.clone()));
            let sources = above.iter().filter_map(of).flat_map(|(it, _)| it.sources.clone());
            let more: Elements = sources.chain(above.iter().cloned()).collect();
            if more.len() == above.len() {
                break;
            }
            above = more;
        }
        if !above.contains(&target.1) {
            admitted.insert(target, (definition, operator));
        }
    }
    admitted
}
