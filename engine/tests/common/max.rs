//! A type that is not of the product: a register that shows the greatest number ever put into it. It is here
//! to show, and to test, what it takes to add one.

use bytes::Bytes;
use lattis_engine::causal::Millis;
use lattis_engine::codec::CodecError;
use lattis_engine::crdt::TypeRecord;
use lattis_engine::name::Slot;
use lattis_engine::row::{Row, Shown};

use super::TypeTest;

const MAX: Slot = Slot(240);
const ONLY: Bytes = Bytes::new();

/// What the engine knows of it.
pub static TYPE: TypeRecord = TypeRecord {
    slot: MAX,
    name: "max",
    kind: Some("max"),
    single: true,
    counts: false,
    register: true,
    elements: false,
    read: greatest,
    validate: |payload| if payload.len() == 8 { Ok(()) } else { Err(CodecError::Invalid("max")) },
    sample: |seed| u64::from(seed).to_be_bytes().to_vec(),
};

/// Of concurrent writes the greatest, and not the last.
fn greatest(row: &Row, hidden: Millis) -> Option<Shown<'_>> {
    let seen = row.siblings().iter().filter(|sibling| sibling.is_after(hidden));
    seen.map(|sibling| &sibling.payload).max().map(Shown::Payload)
}

/// How it is tested.
pub const TEST: TypeTest = TypeTest {
    kind: "max",
    change: |txn, db, key, seed| {
        let number = Bytes::copy_from_slice(&(seed % 1000).to_be_bytes());
        txn.write(db, key, MAX, |key| match key.shown(&ONLY)? {
            Some(Shown::Payload(greatest)) if *greatest >= number => Ok(()),
            _ => key.put(&ONLY, number.clone()),
        })
    },
    show: |txn, db, key, out| {
        let shown = txn.read(db, key, MAX, &ONLY)?;
        out(&shown.map(Shown::into_bytes).unwrap_or_default());
        Ok(())
    },
};
