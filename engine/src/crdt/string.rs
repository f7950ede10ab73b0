//! Strings and numbers: a multi-value register read as last-writer-wins, plus increments.
//!
//! A SET supersedes what its node had seen; concurrent ones stay side by side until the next write, and
//! the greatest (stamp, dot) is shown. An INCR adds to its own node's entry, so concurrent ones add up;
//! the number is base plus increments (MODEL M2).

use super::TypeRecord;
use crate::name::Slot;
use crate::row::Row;

/// A string or a number.
pub const STRING: Slot = Slot(16);

pub(super) static TYPE: TypeRecord = TypeRecord {
    slot: STRING,
    name: "string",
    kind: Some("string"),
    single: true,
    counts: true,
    register: true,
    elements: false,
    read: Row::shown,
    validate: |_| Ok(()),
    sample: |seed| seed.to_string().into_bytes(),
};
