//! The types in tests, one record each: what to do with a key, and what is to be seen of it. Histories, the
//! simulator and the laws go over this table, so that a type that is added here is tested by all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use lattis_engine::crdt::{self, Types};
use lattis_engine::store::MemStore;
use lattis_engine::{OpResult, Ttl, Txn};

#[path = "max.rs"]
pub mod max;

/// What the tests of one type need.
#[derive(Clone, Copy, Debug)]
pub struct TypeTest {
    /// The name that TYPE gives.
    pub kind: &'static str,
    /// Changes a key in a way that a number decides.
    pub change: fn(txn: &mut Txn<'_, MemStore>, db: u16, key: &[u8], seed: u64) -> OpResult<()>,
    /// Shows all that clients see of a key, in the order of the bytes.
    pub show:
        fn(txn: &mut Txn<'_, MemStore>, db: u16, key: &[u8], out: &mut Show<'_>) -> OpResult<()>,
}

/// Takes what is shown, part by part.
pub type Show<'o> = dyn FnMut(&[u8]) + 'o;

/// All of them.
pub static TESTS: &[TypeTest] = &[STRING, SET, HASH, max::TEST];

/// The types that engines know in tests.
pub static TYPES: Types = crdt::TYPES.with(&max::TYPE);

/// Shows a key of any type.
pub fn show(
    txn: &mut Txn<'_, MemStore>,
    db: u16,
    key: &[u8],
    kind: &str,
    out: &mut Show<'_>,
) -> OpResult<()> {
    match TESTS.iter().find(|test| test.kind == kind) {
        Some(test) => (test.show)(txn, db, key, out),
        None => panic!("a type without a test: {kind}"),
    }
}

const WORDS: [&str; 5] = ["1", "2", "3", "x", "1.5"];

/// The word that a part of the number names.
fn word(seed: u64, part: u32) -> Bytes {
    Bytes::from_static(WORDS[(seed >> (8 * part)) as usize % WORDS.len()].as_bytes())
}

const STRING: TypeTest = TypeTest {
    kind: "string",
    change: |txn, db, key, seed| {
        match seed % 8 {
            0..2 => txn.set(db, key, word(seed, 1), Ttl::Clear)?,
            2 => txn.set(db, key, word(seed, 1), Ttl::Keep)?,
            3..7 => drop(txn.increment(db, key, (seed >> 8) as i64 % 7 - 3)?),
            _ => drop(txn.append(db, key, &word(seed, 1))?),
        }
        Ok(())
    },
    show: |txn, db, key, out| {
        out(&txn.get(db, key)?.unwrap_or_default());
        Ok(())
    },
};

const SET: TypeTest = TypeTest {
    kind: "set",
    change: |txn, db, key, seed| {
        let members = [word(seed, 1), word(seed, 2)];
        match seed % 3 {
            0 => txn.set_remove(db, key, &members).map(drop),
            _ => txn.set_add(db, key, &members).map(drop),
        }
    },
    show: |txn, db, key, out| {
        let mut members = BTreeSet::new();
        txn.set_members(db, key, &mut |member| {
            members.insert(member.to_vec());
            ControlFlow::Continue(())
        })?;
        members.iter().for_each(|member| out(member));
        Ok(())
    },
};

const HASH: TypeTest = TypeTest {
    kind: "hash",
    change: |txn, db, key, seed| {
        let field = word(seed, 1);
        match seed % 3 {
            0 => txn.hash_set(db, key, &[(field, word(seed, 2))]).map(drop),
            1 => txn.hash_increment(db, key, &field, (seed >> 16) as i64 % 9 - 4).map(drop),
            _ => txn.hash_remove(db, key, &[field, word(seed, 2)]).map(drop),
        }
    },
    show: |txn, db, key, out| {
        let mut fields = BTreeMap::new();
        txn.hash_fields(db, key, &mut |field, value| {
            fields.insert(field.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })?;
        fields.iter().flat_map(|(field, value)| [field, value]).for_each(|part| out(part));
        Ok(())
    },
};
