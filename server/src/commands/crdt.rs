//! What CRDTs know beyond Redis's types: siblings, dots, digests.

use super::{Call, Command, CommandError, CommandResult, Group, KeySpec, OnKey, access, acl, flag};
use super::{sets, strings};
use crate::net::request::integer;

fn set(call: &mut Call<'_, '_>) -> CommandResult {
    strings::set(call)
}

fn incr(call: &mut Call<'_, '_>) -> CommandResult {
    let by = match (call.args.get(2), call.args.get(3)) {
        (None, _) => 1,
        (Some(word), Some(number)) if word.eq_ignore_ascii_case(b"BY") && call.args.len() == 4 => {
            integer(number).ok_or(CommandError::NOT_INTEGER)?
        }
        _ => return Err(CommandError::SYNTAX),
    };
    strings::increment(call, by)
}

fn get(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    let siblings = call.txn.siblings(call.session.db, key).on(key)?;
    call.reply.array(siblings.len());
    for sibling in siblings {
        call.reply.array(3);
        call.reply.bulk(&sibling.value);
        call.reply.display(&sibling.dot);
        call.reply.display(&sibling.hlc);
    }
    Ok(())
}

fn meta(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    let Some(info) = call.txn.inspect(call.session.db, key).on(key)? else {
        call.reply.map(0);
        return Ok(());
    };
    let visible = info.slots.iter().find(|slot| slot.visible);
    let reply = &mut call.reply;
    reply.map(5);
    reply.bulk(b"type");
    reply.bulk(visible.map_or("none", |slot| slot.kind).as_bytes());
    reply.bulk(b"slots");
    reply.array(info.slots.len());
    for slot in &info.slots {
        reply.map(4);
        reply.bulk(b"type");
        reply.bulk(slot.kind.as_bytes());
        reply.bulk(b"visible");
        reply.boolean(slot.visible);
        reply.bulk(b"born");
        reply.display(&format_args!("{} {}", slot.born.0, slot.born.1));
        reply.bulk(b"live");
        reply.count(slot.live);
    }
    reply.bulk(b"dots");
    reply.array(info.slots.iter().map(|slot| slot.dots.len()).sum());
    for dot in info.slots.iter().flat_map(|slot| &slot.dots) {
        reply.display(dot);
    }
    reply.bulk(b"increments");
    reply.map(info.slots.iter().map(|slot| slot.increments.len()).sum());
    for (origin, sum) in info.slots.iter().flat_map(|slot| &slot.increments) {
        reply.display(origin);
        // Sums may pass the 64 bits that an integer reply has.
        reply.display(sum);
    }
    reply.bulk(b"deadline");
    match info.deadline {
        Some(deadline) => reply.count(deadline.0),
        None => reply.null(),
    }
    Ok(())
}

fn digest(call: &mut Call<'_, '_>) -> CommandResult {
    let digest = call.world.facts.digest();
    call.reply.display(&format_args!("{digest:032x}"));
    Ok(())
}

/// The group's records.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "sadd.crdt",
        arity: -3,
        syntax: "key member [member ...]",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::INSERT)],
        group: Group::Crdt,
        acl: acl::WRITE | acl::SET | acl::FAST,
        summary: "Add members to an add-wins set",
        complexity: "O(N) where N is the number of members",
        example: "SADD.CRDT fruits apple",
        run: sets::sadd,
        ..Command::BASE
    },
    Command {
        name: "srem.crdt",
        arity: -3,
        syntax: "key member [member ...]",
        flags: flag::WRITE | flag::FAST,
        keys: &[KeySpec::ONE.with(access::DELETE)],
        group: Group::Crdt,
        acl: acl::WRITE | acl::SET | acl::FAST,
        summary: "Remove the observed members of an add-wins set",
        complexity: "O(N) where N is the number of members",
        example: "SREM.CRDT fruits apple",
        run: sets::srem,
        ..Command::BASE
    },
    Command {
        name: "incr.crdt",
        arity: -2,
        syntax: "key [BY increment]",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::MODIFY)],
        group: Group::Crdt,
        acl: acl::WRITE | acl::STRING | acl::FAST,
        summary: "Add to a counter",
        complexity: "O(1)",
        example: "INCR.CRDT visits BY 3",
        run: incr,
        ..Command::BASE
    },
    Command {
        name: "set.crdt",
        arity: 3,
        syntax: "key value",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::REPLACE)],
        group: Group::Crdt,
        acl: acl::WRITE | acl::STRING | acl::FAST,
        summary: "Set a register, replacing the siblings that this node has seen",
        complexity: "O(1)",
        example: "SET.CRDT greeting hello",
        run: set,
        ..Command::BASE
    },
    Command {
        name: "get.crdt",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Crdt,
        acl: acl::READ | acl::STRING | acl::FAST,
        summary: "Get all concurrent values of a register with their dots and times, winner first",
        complexity: "O(N) where N is the number of siblings",
        example: "GET.CRDT greeting",
        run: get,
        ..Command::BASE
    },
    Command {
        name: "meta.crdt",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY,
        keys: &[KeySpec::ONE.with(access::LOOK)],
        group: Group::Crdt,
        acl: acl::KEYSPACE | acl::READ | acl::SLOW,
        summary: "Explain a key: type slots, dots, increments per origin, deadline",
        complexity: "O(N) where N is the number of rows of the key",
        example: "META.CRDT greeting",
        run: meta,
        ..Command::BASE
    },
    Command {
        name: "digest.crdt",
        arity: 1,
        flags: flag::READONLY | flag::FAST | flag::SEALED,
        group: Group::Crdt,
        acl: acl::READ | acl::FAST,
        summary: "Get the digest of all data: equal at two nodes if and only if they are equal",
        complexity: "O(1)",
        example: "DIGEST.CRDT",
        run: digest,
        ..Command::BASE
    },
];
