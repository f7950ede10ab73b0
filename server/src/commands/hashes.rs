//! Hashes.

use std::ops::ControlFlow;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Call, Command, CommandError, CommandResult, Group, KeySpec, OnKey, access, acl, flag, scan,
};
use crate::net::reply::Shape;

/// Sets the fields of a request; how many were new.
fn set_fields(call: &mut Call<'_, '_>, name: &str) -> Result<u64, CommandError> {
    if !call.args.len().is_multiple_of(2) {
        return Err(CommandError::arity(name));
    }
    let key = call.args.at(1);
    let fields: SmallVec<[(Bytes, Bytes); 4]> = (2..call.args.len())
        .step_by(2)
        .map(|i| (call.args.owned(i), call.args.owned(i + 1)))
        .collect();
    call.txn.hash_set(call.session.db, key, &fields).on(key)
}

fn hset(call: &mut Call<'_, '_>) -> CommandResult {
    let new = set_fields(call, "hset")?;
    call.reply.count(new);
    Ok(())
}

fn hmset(call: &mut Call<'_, '_>) -> CommandResult {
    set_fields(call, "hmset")?;
    call.reply.ok();
    Ok(())
}

fn hget(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    call.look(key)?;
    let value = call.txn.hash_get(call.session.db, key, call.args.at(2)).on(key)?;
    call.reply.bulk_or_null(value.as_deref());
    Ok(())
}

fn hmget(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    call.look(key)?;
    call.reply.array(call.args.len() - 2);
    for field in call.args.from(2) {
        let value = call.txn.hash_get(call.session.db, key, field).on(key)?;
        call.reply.bulk_or_null(value.as_deref());
    }
    Ok(())
}

/// Writes the fields, the values or both.
fn list(call: &mut Call<'_, '_>, shape: Shape, fields: bool, values: bool) -> CommandResult {
    let (db, key) = (call.session.db, call.args.at(1));
    call.look(key)?;
    let guess = usize::try_from(call.txn.hash_len(db, key).on(key)?).unwrap_or(0);
    let opened = call.reply.open(shape, guess);
    let mut len = 0;
    let reply = &mut call.reply;
    let visit = &mut |field: &[u8], value: &[u8]| {
        if fields {
            reply.bulk(field);
        }
        if values {
            reply.bulk(value);
        }
        len += 1;
        ControlFlow::Continue(())
    };
    call.txn.hash_fields(db, key, visit).on(key)?;
    call.reply.finish(opened, len);
    Ok(())
}

fn hgetall(call: &mut Call<'_, '_>) -> CommandResult {
    list(call, Shape::Map, true, true)
}

fn hkeys(call: &mut Call<'_, '_>) -> CommandResult {
    list(call, Shape::Array, true, false)
}

fn hvals(call: &mut Call<'_, '_>) -> CommandResult {
    list(call, Shape::Array, false, true)
}

fn hdel(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    let fields: SmallVec<[Bytes; 4]> = call.args.from(2).map(Bytes::copy_from_slice).collect();
    let removed = call.txn.hash_remove(call.session.db, key, &fields).on(key)?;
    call.reply.count(removed);
    Ok(())
}

fn hexists(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    call.look(key)?;
    let value = call.txn.hash_get(call.session.db, key, call.args.at(2)).on(key)?;
    call.reply.integer(i64::from(value.is_some()));
    Ok(())
}

fn hincrby(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    let by = call.integer(3)?;
    let value = call.txn.hash_increment(call.session.db, key, call.args.at(2), by).on(key)?;
    call.reply.integer(value);
    Ok(())
}

fn hlen(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    call.look(key)?;
    let len = call.txn.hash_len(call.session.db, key).on(key)?;
    call.reply.count(len);
    Ok(())
}

/// The group's records.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "hset",
        arity: -4,
        syntax: "key field value [field value ...]",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::UPDATE)],
        group: Group::Hash,
        acl: acl::WRITE | acl::HASH | acl::FAST,
        summary: "Set the string value of a hash field",
        since: "2.0.0",
        complexity: "O(N) where N is the number of fields",
        example: "HSET user:1 name Ada",
        run: hset,
        ..Command::BASE
    },
    Command {
        name: "hmset",
        arity: -4,
        syntax: "key field value [field value ...]",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::UPDATE)],
        group: Group::Hash,
        acl: acl::WRITE | acl::HASH | acl::FAST,
        summary: "Set multiple hash fields to multiple values",
        since: "2.0.0",
        complexity: "O(N) where N is the number of fields being set",
        example: "HMSET user:1 name Ada",
        run: hmset,
        ..Command::BASE
    },
    Command {
        name: "hget",
        arity: 3,
        syntax: "key field",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Hash,
        acl: acl::READ | acl::HASH | acl::FAST,
        summary: "Get the value of a hash field",
        since: "2.0.0",
        complexity: "O(1)",
        example: "HGET user:1 name",
        run: hget,
        ..Command::BASE
    },
    Command {
        name: "hmget",
        arity: -3,
        syntax: "key field [field ...]",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Hash,
        acl: acl::READ | acl::HASH | acl::FAST,
        summary: "Get the values of all the given hash fields",
        since: "2.0.0",
        complexity: "O(N) where N is the number of fields being requested",
        example: "HMGET user:1 name age",
        run: hmget,
        ..Command::BASE
    },
    Command {
        name: "hgetall",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Hash,
        acl: acl::READ | acl::HASH | acl::SLOW,
        summary: "Get all the fields and values in a hash",
        since: "2.0.0",
        complexity: "O(N) where N is the size of the hash",
        example: "HGETALL user:1",
        run: hgetall,
        ..Command::BASE
    },
    Command {
        name: "hscan",
        arity: -3,
        syntax: "key cursor [MATCH pattern] [COUNT count]",
        flags: flag::READONLY,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Hash,
        acl: acl::READ | acl::HASH | acl::SLOW,
        summary: "Iterate the fields and values of a hash",
        since: "2.8.0",
        complexity: "O(1) for each field that is looked at",
        example: "HSCAN user:1 0",
        run: scan::hscan,
        ..Command::BASE
    },
    Command {
        name: "hkeys",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Hash,
        acl: acl::READ | acl::HASH | acl::SLOW,
        summary: "Get all the fields in a hash",
        since: "2.0.0",
        complexity: "O(N) where N is the size of the hash",
        example: "HKEYS user:1",
        run: hkeys,
        ..Command::BASE
    },
    Command {
        name: "hvals",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Hash,
        acl: acl::READ | acl::HASH | acl::SLOW,
        summary: "Get all the values in a hash",
        since: "2.0.0",
        complexity: "O(N) where N is the size of the hash",
        example: "HVALS user:1",
        run: hvals,
        ..Command::BASE
    },
    Command {
        name: "hdel",
        arity: -3,
        syntax: "key field [field ...]",
        flags: flag::WRITE | flag::FAST,
        keys: &[KeySpec::ONE.with(access::DELETE)],
        group: Group::Hash,
        acl: acl::WRITE | acl::HASH | acl::FAST,
        summary: "Delete one or more hash fields",
        since: "2.0.0",
        complexity: "O(N) where N is the number of fields to be removed",
        example: "HDEL user:1 age",
        run: hdel,
        ..Command::BASE
    },
    Command {
        name: "hexists",
        arity: 3,
        syntax: "key field",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::LOOK)],
        group: Group::Hash,
        acl: acl::READ | acl::HASH | acl::FAST,
        summary: "Determine if a hash field exists",
        since: "2.0.0",
        complexity: "O(1)",
        example: "HEXISTS user:1 name",
        run: hexists,
        ..Command::BASE
    },
    Command {
        name: "hincrby",
        arity: 4,
        syntax: "key field increment",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::MODIFY)],
        group: Group::Hash,
        acl: acl::WRITE | acl::HASH | acl::FAST,
        summary: "Increment the integer value of a hash field by the given number",
        since: "2.0.0",
        complexity: "O(1)",
        example: "HINCRBY user:1 age 1",
        run: hincrby,
        ..Command::BASE
    },
    Command {
        name: "hlen",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::LOOK)],
        group: Group::Hash,
        acl: acl::READ | acl::HASH | acl::FAST,
        summary: "Get the number of fields in a hash",
        since: "2.0.0",
        complexity: "O(1)",
        example: "HLEN user:1",
        run: hlen,
        ..Command::BASE
    },
];
