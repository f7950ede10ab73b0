//! Births: a key that is seen has a type, and the slot that is seen has a birth.

use lattis_engine::causal::Hlc;
use lattis_engine::store::MemStore;
use lattis_engine::{OpResult, Txn};

use super::Verdict;
use crate::sim::workload::keys;

/// Looks at every key of both dbs. `settled`: all deadlines have passed and were worked off.
pub fn check(txn: &mut Txn<'_, MemStore>, settled: bool) -> OpResult<Verdict> {
    for db in [0, 1] {
        for (key, listed) in keys(txn, db)? {
            // A deadline that was reached hides a key, or one of its types, when it is next looked at.
            let kind = txn.kind(db, &key)?;
            if settled && kind != Some(listed) {
                return Ok(Err(format!("{key:?} is listed as {listed:?} after its deadline")));
            }
            let Some(kind) = kind else { continue };
            let Some(info) = txn.inspect(db, &key)? else {
                return Ok(Err(format!("{key:?} is seen, but there is nothing to inspect")));
            };
            if info.derived.is_some() {
                continue;
            }
            match info.slots.first() {
                Some(slot) if slot.visible && slot.kind == kind && slot.born.0 > Hlc(0) => {}
                slot => {
                    return Ok(Err(format!("{kind} {key:?} is seen; inspected it is {slot:?}")));
                }
            }
        }
    }
    Ok(Ok(()))
}
