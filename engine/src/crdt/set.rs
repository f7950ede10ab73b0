//! Sets: add-wins (observed-remove), a row per member.
//!
//! A member is there while any dot in its row is: a removal takes the dots that its node had seen, so a
//! concurrent addition stays (Shapiro, Preguiça, Baquero, Zawirski: "Conflict-free Replicated Data
//! Types", 2011, without tombstones as in Bieniusa et al., 2012). Adding a member that is there takes a
//! new dot, or a concurrent removal would win over it. Never one blob per set: SADD is O(1) at any size.

use super::TypeRecord;
use crate::codec::CodecError;
use crate::name::Slot;
use crate::row::Row;

/// Members of an add-wins set: a row per member.
pub const SET: Slot = Slot(17);

pub(super) static TYPE: TypeRecord = TypeRecord {
    slot: SET,
    name: "set",
    kind: Some("set"),
    single: false,
    counts: false,
    register: false,
    elements: true,
    read: Row::shown,
    validate: |payload| {
        if payload.is_empty() { Ok(()) } else { Err(CodecError::Invalid("member")) }
    },
    sample: |_| Vec::new(),
};
