//! Hashes: a register per field, number-capable like a string; fields are add-wins like members.

use super::TypeRecord;
use crate::name::Slot;
use crate::row::Row;

/// Fields of a hash: a row per field.
pub const HASH: Slot = Slot(18);

pub(super) static TYPE: TypeRecord = TypeRecord {
    slot: HASH,
    name: "hash",
    kind: Some("hash"),
    single: false,
    counts: true,
    register: true,
    elements: false,
    read: Row::shown,
    validate: |_| Ok(()),
    sample: |seed| seed.to_string().into_bytes(),
};
