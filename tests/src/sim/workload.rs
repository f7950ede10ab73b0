//! What clients do: generated scripts, and what each command means to the checkers.
//!
//! A script is data, drawn before it runs, so that a trace can show it. Running a command gives *facts*:
//! what was put, added and removed, in the words of the contract and not of the engine. The checkers
//! judge by the facts and by who had seen what.
//!
//! Keys have fixed roles. In db 0 `a`-`d` take every command and types collide; `v`, `w` and `d` are
//! targets of bindings; `r1`, `r2` (numbers with resets), `s1` (set) and `h1` (hash) keep their type
//! and have no deadlines, so that their value can be computed exactly. Db 1 is never flushed: `c1`-`c3`
//! and the fields of `ch` are only incremented; `x` and `y` are only set together; `t1`, `t2` live
//! under deadlines.

use std::ops::ControlFlow;

use bytes::Bytes;
use lattis_engine::causal::{Dot, Millis};
use lattis_engine::name::Cursor;
use lattis_engine::store::MemStore;
use lattis_engine::{OpResult, Tick, Ttl, Txn};

use rand_core::RngCore as _;

use super::rng::Rng;
use super::swarm::Swarm;
use super::types::{self, TypeTest};

/// A row in the words of the contract: db, key, member or field (empty for strings).
pub type Place = (u16, &'static str, Bytes);

/// What a command did.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A value or member was written, in place of what was seen there.
    Put(Place, Bytes),
    /// A number was incremented.
    Add(Place, i64),
    /// A member or field was removed.
    RemoveRow(Place),
    /// A key was removed.
    RemoveKey(u16, &'static str),
    /// A db was emptied.
    RemoveDb(u16),
    /// A key got a deadline.
    Deadline(u16, &'static str, Millis),
}

/// One command.
#[derive(Clone, Debug)]
pub enum Op {
    /// SET
    Set(u16, &'static str, Bytes, Ttl),
    /// INCRBY
    Increment(u16, &'static str, i64),
    /// APPEND
    Append(u16, &'static str, Bytes),
    /// SADD
    SetAdd(u16, &'static str, Vec<Bytes>),
    /// SREM
    SetRemove(u16, &'static str, Vec<Bytes>),
    /// HSET
    HashSet(u16, &'static str, Bytes, Bytes),
    /// HINCRBY
    HashIncrement(u16, &'static str, Bytes, i64),
    /// HDEL
    HashRemove(u16, &'static str, Vec<Bytes>),
    /// DEL
    Delete(u16, &'static str),
    /// PEXPIREAT, or PERSIST
    Expire(u16, &'static str, Option<Millis>),
    /// FLUSHDB
    Flush(u16),
    /// MAP.BIND and others: target, operator, sources, expression.
    Bind(&'static str, &'static str, Vec<&'static str>, &'static str),
    /// BIND.DEL
    Unbind(&'static str),
    /// A change of a key as one of the types makes it, decided by a number.
    Change(TypeTest, u16, &'static str, u64),
}

/// One transaction: commands, each of which may be rolled back.
#[derive(Clone, Debug)]
pub struct Script {
    /// The commands; true: is rolled back after it ran.
    pub steps: Vec<(Op, bool)>,
}

/// A script that was committed.
#[derive(Clone, Debug)]
pub struct Ran {
    /// A dot of the commit that it is part of.
    pub dot: Dot,
    /// What it did.
    pub facts: Vec<Fact>,
}

const GENERAL: [&str; 4] = ["a", "b", "c", "d"];
const TARGETS: [&str; 3] = ["v", "w", "d"];
const SOURCES: [&str; 6] = ["a", "b", "v", "w", "d", "s1"];
const MEMBERS: [&str; 5] = ["1", "2", "3", "x", "1.5"];

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn member(rng: &mut Rng) -> Bytes {
    bytes(rng.pick(&MEMBERS))
}

impl Script {
    /// Draws a script for a node whose clock shows `now`.
    pub fn draw(rng: &mut Rng, swarm: &Swarm, now: Millis, serial: u64) -> Script {
        let mut steps = Vec::new();
        if rng.chance(8) {
            let value = bytes(&serial.to_string());
            for key in ["x", "y"] {
                steps.push((Op::Set(1, key, value.clone(), Ttl::Clear), false));
            }
        }
        let count = if swarm.multi && rng.chance(25) { 1 + rng.below(5) } else { 1 };
        for _ in 0..count {
            let undone = count > 1 && rng.chance(20);
            steps.push((draw(rng, swarm, now), undone));
        }
        Script { steps }
    }

    /// Runs the script as one transaction.
    pub fn run(&self, tick: &mut Tick<'_, MemStore>) -> Option<Ran> {
        let mut txn = tick.txn();
        let mut facts = Vec::new();
        for (op, undone) in &self.steps {
            let savepoint = txn.savepoint();
            let before = facts.len();
            if op.run(&mut txn, &mut facts).is_err() || *undone {
                txn.rollback(savepoint);
                facts.truncate(before);
            }
        }
        txn.commit().map(|dot| Ran { dot, facts })
    }
}

fn draw(rng: &mut Rng, swarm: &Swarm, now: Millis) -> Op {
    let soon = |rng: &mut Rng| Millis(now.0 + rng.below(60));
    let ttl = |rng: &mut Rng| match rng.below(3) {
        0 if swarm.deadlines => Ttl::At(soon(rng)),
        1 => Ttl::Keep,
        _ => Ttl::Clear,
    };
    match rng.below(100) {
        // Exact counters.
        0..10 => Op::Increment(1, rng.pick(&["c1", "c2", "c3"]), rng.below(9) as i64 - 3),
        10..15 => {
            let field = bytes(rng.pick(&["f1", "f2"]));
            Op::HashIncrement(1, "ch", field, rng.below(9) as i64 - 4)
        }
        // Numbers with resets.
        15..30 => {
            let key: &'static str = rng.pick(&["r1", "r2"]);
            match rng.below(10) {
                0..6 => Op::Increment(0, key, rng.below(9) as i64 - 4),
                6 => Op::Set(0, key, member(rng), Ttl::Clear),
                7 => Op::Append(0, key, bytes("1")),
                _ => Op::Delete(0, key),
            }
        }
        // An exact set and an exact hash.
        30..38 => match rng.below(10) {
            0..5 => Op::SetAdd(0, "s1", vec![member(rng), member(rng)]),
            5..9 => Op::SetRemove(0, "s1", vec![member(rng), member(rng)]),
            _ => Op::Delete(0, "s1"),
        },
        38..45 => match rng.below(10) {
            0..3 => Op::HashSet(0, "h1", member(rng), member(rng)),
            3..6 => Op::HashIncrement(0, "h1", member(rng), rng.below(9) as i64 - 4),
            6..9 => Op::HashRemove(0, "h1", vec![member(rng)]),
            _ => Op::Delete(0, "h1"),
        },
        // Deadlines.
        45..53 if swarm.deadlines => match rng.below(10) {
            0..4 => Op::SetAdd(1, "t1", vec![member(rng)]),
            4 => Op::SetRemove(1, "t1", vec![member(rng)]),
            5..7 => Op::Expire(1, rng.pick(&["t1", "t2"]), Some(soon(rng))),
            7 => Op::Expire(1, rng.pick(&["t1", "t2"]), None),
            8 => Op::Delete(1, rng.pick(&["t1", "t2"])),
            _ => Op::Set(1, "t2", member(rng), ttl(rng)),
        },
        53..55 if swarm.flush => Op::Flush(0),
        55..62 if swarm.bindings => {
            let target: &'static str = rng.pick(&TARGETS);
            let one: &'static str = rng.pick(&SOURCES);
            let two: &'static str = rng.pick(&SOURCES);
            match rng.below(4) {
                0 => Op::Bind(target, "MAP", vec![one], "x * 2"),
                1 => Op::Bind(target, "FILTER", vec![one], "x > 1"),
                2 => Op::Bind(target, "UNION", vec![one, two], ""),
                _ => Op::Unbind(target),
            }
        }
        // Everything on everything.
        _ => {
            let key: &'static str = rng.pick(&GENERAL);
            match rng.below(28) {
                0..3 => Op::Set(0, key, member(rng), ttl(rng)),
                3..6 => Op::Increment(0, key, rng.below(7) as i64 - 3),
                6 => Op::Append(0, key, member(rng)),
                7..11 => Op::SetAdd(0, key, vec![member(rng), member(rng)]),
                11..13 => Op::SetRemove(0, key, vec![member(rng), member(rng)]),
                13..15 => Op::HashSet(0, key, member(rng), member(rng)),
                15..17 => Op::HashIncrement(0, key, member(rng), rng.below(9) as i64 - 4),
                17 => Op::HashRemove(0, key, vec![member(rng), member(rng)]),
                18..20 => Op::Delete(0, key),
                20 if swarm.deadlines => Op::Expire(0, key, Some(soon(rng))),
                21 if swarm.deadlines => Op::Expire(0, key, None),
                24.. => Op::Change(rng.pick(types::TESTS), 0, key, rng.next_u64()),
                // So many members that the key is removed by scope.
                22 if swarm.big => {
                    Op::SetAdd(0, "c", (0..70).map(|n| bytes(&n.to_string())).collect())
                }
                _ => Op::Delete(0, key),
            }
        }
    }
}

impl Op {
    fn run(&self, txn: &mut Txn<'_, MemStore>, facts: &mut Vec<Fact>) -> OpResult<()> {
        let no = Bytes::new();
        match self {
            Op::Set(db, key, value, ttl) => {
                txn.set(*db, key.as_bytes(), value.clone(), *ttl)?;
                facts.push(Fact::Put((*db, key, no), value.clone()));
                if let Ttl::At(time) = ttl {
                    facts.push(Fact::Deadline(*db, key, *time));
                }
            }
            Op::Increment(db, key, by) => {
                txn.increment(*db, key.as_bytes(), *by)?;
                facts.push(Fact::Add((*db, key, no), *by));
            }
            Op::Append(db, key, tail) => {
                txn.append(*db, key.as_bytes(), tail)?;
                let value = txn.get(*db, key.as_bytes())?.unwrap_or_default();
                facts.push(Fact::Put((*db, key, no), value));
            }
            Op::SetAdd(db, key, members) => {
                txn.set_add(*db, key.as_bytes(), members)?;
                let put = |member: &Bytes| Fact::Put((*db, *key, member.clone()), Bytes::new());
                facts.extend(members.iter().map(put));
            }
            Op::SetRemove(db, key, members) => {
                txn.set_remove(*db, key.as_bytes(), members)?;
                let gone = |member: &Bytes| Fact::RemoveRow((*db, *key, member.clone()));
                facts.extend(members.iter().map(gone));
            }
            Op::HashSet(db, key, field, value) => {
                txn.hash_set(*db, key.as_bytes(), &[(field.clone(), value.clone())])?;
                facts.push(Fact::Put((*db, key, field.clone()), value.clone()));
            }
            Op::HashIncrement(db, key, field, by) => {
                txn.hash_increment(*db, key.as_bytes(), field, *by)?;
                facts.push(Fact::Add((*db, key, field.clone()), *by));
            }
            Op::HashRemove(db, key, fields) => {
                txn.hash_remove(*db, key.as_bytes(), fields)?;
                let gone = |field: &Bytes| Fact::RemoveRow((*db, *key, field.clone()));
                facts.extend(fields.iter().map(gone));
            }
            Op::Delete(db, key) => {
                if txn.delete(*db, key.as_bytes())? {
                    facts.push(Fact::RemoveKey(*db, key));
                }
            }
            Op::Expire(db, key, time) => {
                let done = txn.expire(*db, key.as_bytes(), *time)?;
                match time {
                    Some(time) if done && *time < txn.now() => {
                        facts.push(Fact::RemoveKey(*db, key));
                    }
                    Some(time) if done => facts.push(Fact::Deadline(*db, key, *time)),
                    _ => {}
                }
            }
            Op::Flush(db) => {
                txn.flush(*db)?;
                facts.push(Fact::RemoveDb(*db));
            }
            Op::Bind(target, operator, sources, expression) => {
                let sources: Vec<Bytes> = sources.iter().map(|source| bytes(source)).collect();
                txn.bind(0, target.as_bytes(), operator, &sources, expression)?;
            }
            Op::Unbind(target) => drop(txn.unbind(0, target.as_bytes())?),
            // What such keys show is compared between nodes, and not with a history of facts.
            Op::Change(test, db, key, seed) => (test.change)(txn, *db, key.as_bytes(), *seed)?,
        }
        Ok(())
    }
}

/// The visible keys of a db and their types.
pub fn keys(txn: &mut Txn<'_, MemStore>, db: u16) -> OpResult<Vec<(Bytes, &'static str)>> {
    let mut keys = Vec::new();
    txn.keys(db, Cursor::START, &mut |key, kind| {
        keys.push((Bytes::copy_from_slice(key), kind));
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

/// What clients see of both dbs, as lines.
pub fn dump(txn: &mut Txn<'_, MemStore>) -> OpResult<Vec<String>> {
    let mut lines = Vec::new();
    for db in [0, 1] {
        let keys = keys(txn, db)?;
        lines.push(format!("db {db}: {} keys of {}", keys.len(), txn.db_size(db)?));
        for (key, kind) in keys {
            let mut line = format!("{db} {kind} {}", String::from_utf8_lossy(&key));
            let mut add = |part: &[u8]| {
                line.push(' ');
                line.push_str(&String::from_utf8_lossy(part));
            };
            types::show(txn, db, &key, kind, &mut add)?;
            lines.push(line);
        }
    }
    Ok(lines)
}
