//! Brings a store of a version before into the order of this one.
//!
//! Rows were in the order of the names' bytes; now they are in that of a hash of the names ([`keys`]), in
//! families of their own. A start moves them, range by range: each is one run, which writes the rows where
//! they belong now and removes them where they were. So a start that ends in the middle has moved some ranges
//! whole, and the next one goes on. With the first range the record of the state is written anew, so that a
//! version before refuses a store that is not in its order any more.

use std::ops::ControlFlow;

use crate::engine::State;
use crate::store::{Family, Hole, Read, Run, Store, StoreError, has_rows, keys};

/// Families in the first order.
const FIRST: [Family; 3] = [Family::FirstKeys, Family::FirstData, Family::FirstDerived];

/// Rows and bytes that are moved at once, at most; one row in any case.
const ROWS: usize = 1 << 16;
const BYTES: usize = 16 << 20;

/// Whether the store has rows that a start has to move.
pub fn is_due<R: Read>(store: &R) -> Result<bool, StoreError> {
    has_rows(store, FIRST)
}

/// Moves the rows that are in the first order; returns how many. Nothing else may be written meanwhile. After
/// an error some ranges are moved, and those that were tried are as they were. Cost: all such rows, once;
/// memory for one range.
pub(crate) fn run<S: Store>(store: &S, state: &State) -> Result<u64, StoreError> {
    let mut moved = 0;
    for family in FIRST {
        let mut from = Vec::new();
        loop {
            let mut run = Run::default();
            let (mut rows, mut bytes) = (0, 0);
            let mut to = Vec::new();
            let mut foreign = None;
            store.scan(family, &from, &[], &mut |key, value| {
                let Some((family, name)) = keys::reordered(family, key) else {
                    foreign = Some(key.to_vec());
                    return ControlFlow::Break(());
                };
                run.put(family, &name, value);
                to.clear();
                to.extend_from_slice(key);
                (rows, bytes) = (rows + 1, bytes + key.len() + value.len());
                match rows < ROWS && bytes < BYTES {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            })?;
            if let Some(key) = foreign {
                let key = key.escape_ascii();
                return Err(StoreError::Corrupt(format!("{family:?} '{key}': not a key of it")));
            }
            if rows == 0 {
                break;
            }
            to.push(0);
            run.erase(Hole { family, from, to: to.clone(), why: String::new() });
            from = to;
            run.put(Family::System, keys::STATE, state.encode().as_slice());
            store.write_run(&mut run)?;
            moved += rows as u64;
        }
    }
    Ok(moved)
}
