//! Sets.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Call, Command, CommandError, CommandResult, Group, KeySpec, OnKey, access, acl, flag, scan,
};
use crate::net::reply::Shape;

/// Copies of the arguments from `first` on: what the engine is to keep.
fn owned(call: &Call<'_, '_>, first: usize) -> SmallVec<[Bytes; 4]> {
    call.args.from(first).map(Bytes::copy_from_slice).collect()
}

pub(super) fn sadd(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    let members = owned(call, 2);
    let added = call.txn.set_add(call.session.db, key, &members).on(key)?;
    call.reply.count(added);
    Ok(())
}

pub(super) fn srem(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    let members = owned(call, 2);
    let removed = call.txn.set_remove(call.session.db, key, &members).on(key)?;
    call.reply.count(removed);
    Ok(())
}

fn smembers(call: &mut Call<'_, '_>) -> CommandResult {
    let (db, key) = (call.session.db, call.args.at(1));
    call.look(key)?;
    let guess = usize::try_from(call.txn.set_len(db, key).on(key)?).unwrap_or(0);
    let opened = call.reply.open(Shape::Set, guess);
    let mut len = 0;
    let reply = &mut call.reply;
    let visit = &mut |member: &[u8]| {
        reply.bulk(member);
        len += 1;
        ControlFlow::Continue(())
    };
    call.txn.set_members(db, key, visit).on(key)?;
    call.reply.finish(opened, len);
    Ok(())
}

fn sismember(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    call.look(key)?;
    let found = call.txn.set_contains(call.session.db, key, call.args.at(2)).on(key)?;
    call.reply.integer(i64::from(found));
    Ok(())
}

fn smismember(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    call.look(key)?;
    call.reply.array(call.args.len() - 2);
    for member in call.args.from(2) {
        let found = call.txn.set_contains(call.session.db, key, member).on(key)?;
        call.reply.integer(i64::from(found));
    }
    Ok(())
}

fn scard(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    call.look(key)?;
    let len = call.txn.set_len(call.session.db, key).on(key)?;
    call.reply.count(len);
    Ok(())
}

/// All members of a set, in the engine's order.
fn members(call: &mut Call<'_, '_>, key: &[u8]) -> Result<Vec<Bytes>, CommandError> {
    let mut members = Vec::new();
    let visit = &mut |member: &[u8]| {
        members.push(Bytes::copy_from_slice(member));
        ControlFlow::Continue(())
    };
    call.txn.set_members(call.session.db, key, visit).on(key)?;
    Ok(members)
}

fn answer<'m>(call: &mut Call<'_, '_>, len: usize, members: impl Iterator<Item = &'m [u8]>) {
    call.reply.set(len);
    members.for_each(|member| call.reply.bulk(member));
}

/// The keys of a command, looked up.
fn looked_up<'a>(call: &mut Call<'a, '_>) -> Result<SmallVec<[&'a [u8]; 4]>, CommandError> {
    let keys: SmallVec<[&[u8]; 4]> = call.args.from(1).collect();
    for key in &keys {
        call.look(key)?;
    }
    Ok(keys)
}

fn sinter(call: &mut Call<'_, '_>) -> CommandResult {
    let keys = looked_up(call)?;
    let common = call.txn.set_inter(call.session.db, &keys).on(keys[0])?;
    answer(call, common.len(), common.iter());
    Ok(())
}

fn sunion(call: &mut Call<'_, '_>) -> CommandResult {
    let mut union = BTreeSet::new();
    for key in call.args.from(1) {
        call.look(key)?;
        union.extend(members(call, key)?);
    }
    answer(call, union.len(), union.iter().map(|member| &**member));
    Ok(())
}

fn sdiff(call: &mut Call<'_, '_>) -> CommandResult {
    let keys = looked_up(call)?;
    let rest = call.txn.set_diff(call.session.db, &keys).on(keys[0])?;
    answer(call, rest.len(), rest.iter());
    Ok(())
}

/// The group's records.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "sadd",
        arity: -3,
        syntax: "key member [member ...]",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::INSERT)],
        group: Group::Set,
        acl: acl::WRITE | acl::SET | acl::FAST,
        summary: "Add one or more members to a set",
        since: "1.0.0",
        complexity: "O(N) where N is the number of members",
        example: "SADD fruits apple pear",
        run: sadd,
        ..Command::BASE
    },
    Command {
        name: "srem",
        arity: -3,
        syntax: "key member [member ...]",
        flags: flag::WRITE | flag::FAST,
        keys: &[KeySpec::ONE.with(access::DELETE)],
        group: Group::Set,
        acl: acl::WRITE | acl::SET | acl::FAST,
        summary: "Remove one or more members from a set",
        since: "1.0.0",
        complexity: "O(N) where N is the number of members to be removed",
        example: "SREM fruits pear",
        run: srem,
        ..Command::BASE
    },
    Command {
        name: "smembers",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Set,
        acl: acl::READ | acl::SET | acl::SLOW,
        summary: "Get all the members in a set",
        since: "1.0.0",
        complexity: "O(N) where N is the set cardinality",
        example: "SMEMBERS fruits",
        run: smembers,
        ..Command::BASE
    },
    Command {
        name: "sscan",
        arity: -3,
        syntax: "key cursor [MATCH pattern] [COUNT count]",
        flags: flag::READONLY,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Set,
        acl: acl::READ | acl::SET | acl::SLOW,
        summary: "Iterate the members of a set",
        since: "2.8.0",
        complexity: "O(1) for each member that is looked at",
        example: "SSCAN fruits 0",
        run: scan::sscan,
        ..Command::BASE
    },
    Command {
        name: "sismember",
        arity: 3,
        syntax: "key member",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::LOOK)],
        group: Group::Set,
        acl: acl::READ | acl::SET | acl::FAST,
        summary: "Determine if a given value is a member of a set",
        since: "1.0.0",
        complexity: "O(1)",
        example: "SISMEMBER fruits apple",
        run: sismember,
        ..Command::BASE
    },
    Command {
        name: "smismember",
        arity: -3,
        syntax: "key member [member ...]",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Set,
        acl: acl::READ | acl::SET | acl::FAST,
        summary: "Returns the membership associated with the given elements for a set",
        since: "6.2.0",
        complexity: "O(N) where N is the number of elements being checked for membership",
        example: "SMISMEMBER fruits apple pear",
        run: smismember,
        ..Command::BASE
    },
    Command {
        name: "scard",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::LOOK)],
        group: Group::Set,
        acl: acl::READ | acl::SET | acl::FAST,
        summary: "Get the number of members in a set",
        since: "1.0.0",
        complexity: "O(1)",
        example: "SCARD fruits",
        run: scard,
        ..Command::BASE
    },
    Command {
        name: "sinter",
        arity: -2,
        syntax: "key [key ...]",
        flags: flag::READONLY,
        keys: &[KeySpec::ALL.with(access::READ)],
        group: Group::Set,
        acl: acl::READ | acl::SET | acl::SLOW,
        summary: "Intersect multiple sets",
        since: "1.0.0",
        complexity: "O(N*M) where N is the size of the smallest set and M the number of sets",
        example: "SINTER fruits red",
        run: sinter,
        ..Command::BASE
    },
    Command {
        name: "sunion",
        arity: -2,
        syntax: "key [key ...]",
        flags: flag::READONLY,
        keys: &[KeySpec::ALL.with(access::READ)],
        group: Group::Set,
        acl: acl::READ | acl::SET | acl::SLOW,
        summary: "Add multiple sets",
        since: "1.0.0",
        complexity: "O(N) where N is the total number of elements in all given sets",
        example: "SUNION fruits red",
        run: sunion,
        ..Command::BASE
    },
    Command {
        name: "sdiff",
        arity: -2,
        syntax: "key [key ...]",
        flags: flag::READONLY,
        keys: &[KeySpec::ALL.with(access::READ)],
        group: Group::Set,
        acl: acl::READ | acl::SET | acl::SLOW,
        summary: "Subtract multiple sets",
        since: "1.0.0",
        complexity: "O(N) where N is the total number of elements in all given sets",
        example: "SDIFF fruits red",
        run: sdiff,
        ..Command::BASE
    },
];
