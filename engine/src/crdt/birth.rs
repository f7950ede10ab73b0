//! Births: which of several types under one key is the visible one (MODEL M8).
//!
//! Each write into a collection slot stamps the slot's birth under a dot of its own, superseding the
//! births it observed; the birth itself is copied while the slot lives. Of the slots that are not empty
//! the one born last by (stamp, origin) is visible, the same at every node. (A birth written by the
//! creating command alone could be lost while members lived.) A string needs none: it is born with its
//! winning write.

use bytes::Bytes;

use super::TypeRecord;
use crate::causal::{Hlc, Origin};
use crate::codec::{CodecError, Reader, Writer};
use crate::name::Slot;
use crate::row::{Row, Sibling};

pub(super) static TYPE: TypeRecord = TypeRecord {
    slot: Slot::BIRTH,
    name: "birth",
    kind: None,
    single: true,
    counts: false,
    register: false,
    elements: false,
    read: Row::shown,
    validate: |payload| if payload.is_empty() { Ok(()) } else { decode(payload).map(drop) },
    sample: |seed| encode(Hlc(u64::from(seed)), &Origin::default()).to_vec(),
};

/// The payload of a copied birth. A new birth has an empty payload: it is the stamp of its own write.
pub(crate) fn encode(born: Hlc, origin: &Origin) -> Bytes {
    let mut out = Writer::new();
    out.u64(born.0);
    out.origin(origin);
    out.finish()
}

/// What [`encode`] wrote.
pub(crate) fn decode(payload: &[u8]) -> Result<(Hlc, Origin), CodecError> {
    let mut input = Reader::new(payload);
    let birth = (input.hlc()?, input.origin()?);
    input.end()?;
    Ok(birth)
}

fn of_sibling(sibling: &Sibling) -> (Hlc, Origin) {
    // Payloads are validated before they enter a row, so the fallback is only for the type checker.
    decode(&sibling.payload).unwrap_or((sibling.stamp.hlc, sibling.dot.origin))
}

/// When the slot was born, as far as its birth row tells.
pub(crate) fn of_row(row: &Row) -> Option<(Hlc, Origin)> {
    row.siblings().iter().map(of_sibling).max()
}
