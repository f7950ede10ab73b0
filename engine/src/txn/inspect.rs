//! All that is known of a key, for people.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{OpResult, Txn};
use crate::causal::{Dot, Hlc, Millis, Origin};
use crate::name::Cursor;
use crate::row::Row;
use crate::store::Store;

/// One surviving write of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiblingInfo {
    /// What was written.
    pub value: Bytes,
    /// By which effect.
    pub dot: Dot,
    /// When.
    pub hlc: Hlc,
}

/// One type slot of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// The name of its type.
    pub kind: &'static str,
    /// Whether it is the one that clients see.
    pub visible: bool,
    /// When it was born, and by whom.
    pub born: (Hlc, Origin),
    /// Visible rows.
    pub live: u64,
    /// Dots of all rows, of big collections the first 1,000.
    pub dots: Vec<Dot>,
    /// What each origin's increments add, over all rows.
    pub increments: Vec<(Origin, i128)>,
}

/// All that is known of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyInfo {
    /// Slots that have something to see, the visible one first.
    pub slots: Vec<SlotInfo>,
    /// The deadline that counts.
    pub deadline: Option<Millis>,
    /// The operator that derives the key.
    pub derived: Option<&'static str>,
}

/// Dots that META shows of one slot at most.
const MAX_DOTS_SHOWN: usize = 1_000;

impl<S: Store> Txn<'_, S> {
    /// Everything that is known of a key; `None` if there is nothing visible.
    pub fn inspect(&mut self, db: u16, key: &[u8]) -> OpResult<Option<KeyInfo>> {
        let place = self.open(db, key)?;
        let header = self.at(place).clone();
        let Some(visible) = header.visible() else { return Ok(None) };
        let mut info = KeyInfo { deadline: header.expires(), ..KeyInfo::default() };
        info.derived = header.derived.map(|_| self.operator_of(db, key));
        for slot in header.visible_slots() {
            let kind = self.engine.config.types.kind(slot);
            let (Some(kind), Some(born)) = (kind, header.born(slot)) else { continue };
            let mut slot_info = SlotInfo {
                kind,
                visible: slot == visible && info.derived.is_none(),
                born,
                live: header.rows(slot),
                dots: Vec::new(),
                increments: Vec::new(),
            };
            if self.engine.config.types.is_single(slot) {
                slot_info.add(header.single(slot), header.hidden);
            } else {
                let visited =
                    self.engine.space.visit_rows(db, key, slot, Cursor::START, &mut |_, row| {
                        slot_info.add(row, header.hidden);
                        ControlFlow::Continue(())
                    });
                self.guard(visited)?;
            }
            info.slots.push(slot_info);
        }
        info.slots.sort_by_key(|slot| !slot.visible);
        Ok(Some(info))
    }

    /// Bytes of memory that a key takes when all of it is there, by `samples` rows of a collection, or by
    /// all if that is 0; `None` if it is absent. Cost: the samples.
    pub fn key_bytes(&mut self, db: u16, key: &[u8], samples: usize) -> OpResult<Option<u64>> {
        self.open(db, key)?;
        let bytes = self.engine.space.key_bytes(db, key, samples);
        self.guard(bytes)
    }
}

impl SlotInfo {
    fn add(&mut self, row: &Row, hidden: Millis) {
        let room = MAX_DOTS_SHOWN.saturating_sub(self.dots.len());
        let siblings = row.siblings().iter().filter(|sibling| sibling.is_after(hidden));
        self.dots.extend(siblings.map(|sibling| sibling.dot).take(room));
        for entry in row.counters().iter().filter(|entry| entry.is_live() && entry.is_after(hidden))
        {
            match self.increments.iter_mut().find(|(origin, _)| *origin == entry.origin) {
                Some((_, sum)) => *sum = sum.wrapping_add(entry.value()),
                None => self.increments.push((entry.origin, entry.value())),
            }
        }
    }
}
