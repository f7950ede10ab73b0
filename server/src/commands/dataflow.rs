//! Bindings: keys whose values are computed from other keys.

use bytes::Bytes;
use lattis_engine::BindingInfo;

use super::{Call, Command, CommandError, CommandResult, Group, KeySpec, OnKey, access, acl, flag};
use crate::glob;

/// `NAME.BIND target sources... [expression]`
fn bind(
    call: &mut Call<'_, '_>,
    operator: &str,
    sources: Vec<Bytes>,
    text: &[u8],
) -> CommandResult {
    let target = call.args.at(1);
    let expression = std::str::from_utf8(text)
        .map_err(|_| CommandError::Fixed("ERR the expression is not valid UTF-8"))?;
    call.txn.bind(call.session.db, target, operator, &sources, expression).on(target)?;
    call.reply.ok();
    Ok(())
}

fn source(call: &Call<'_, '_>) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(call.args.at(2))]
}

fn map_bind(call: &mut Call<'_, '_>) -> CommandResult {
    let (sources, expression) = (source(call), call.args.at(3));
    bind(call, "MAP", sources, expression)
}

fn filter_bind(call: &mut Call<'_, '_>) -> CommandResult {
    let (sources, expression) = (source(call), call.args.at(3));
    bind(call, "FILTER", sources, expression)
}

fn union_bind(call: &mut Call<'_, '_>) -> CommandResult {
    let sources = call.args.from(2).map(Bytes::copy_from_slice).collect();
    bind(call, "UNION", sources, b"")
}

fn bind_list(call: &mut Call<'_, '_>) -> CommandResult {
    let pattern = match call.args.len() {
        1 => None,
        2 => Some(call.args.at(1)),
        _ => return Err(CommandError::arity("bind.list")),
    };
    let wanted =
        |it: &BindingInfo| pattern.is_none_or(|pattern| glob::matches(pattern, &it.target));
    let mut bindings = call.txn.bindings(call.session.db);
    bindings.retain(wanted);
    let reply = &mut call.reply;
    reply.array(bindings.len());
    for binding in bindings {
        reply.array(5);
        reply.bulk(&binding.target);
        reply.bulk(binding.operator.as_bytes());
        reply.array(binding.sources.len());
        for source in &binding.sources {
            reply.bulk(source);
        }
        reply.bulk(binding.expression.as_bytes());
        reply.bulk(binding.state.as_bytes());
    }
    Ok(())
}

fn bind_del(call: &mut Call<'_, '_>) -> CommandResult {
    let target = call.args.at(1);
    let removed = call.txn.unbind(call.session.db, target).on(target)?;
    call.reply.integer(i64::from(removed));
    Ok(())
}

/// Defining a binding is administration: it reads keys and owns another one for good.
const ADMIN: u32 = acl::ADMIN | acl::SLOW | acl::DANGEROUS;

/// The group's records.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "map.bind",
        arity: 4,
        syntax: "target source expression",
        flags: flag::WRITE | flag::DENYOOM | flag::ADMIN,
        keys: &[KeySpec::ONE.with(access::REPLACE), KeySpec::at(2).with(access::READ)],
        group: Group::Dataflow,
        acl: ADMIN,
        summary: "Derive a set from another one by an expression on each element",
        complexity: "O(N) where N is the size of the source",
        example: "MAP.BIND doubled numbers x*2",
        run: map_bind,
        ..Command::BASE
    },
    Command {
        name: "filter.bind",
        arity: 4,
        syntax: "target source expression",
        flags: flag::WRITE | flag::DENYOOM | flag::ADMIN,
        keys: &[KeySpec::ONE.with(access::REPLACE), KeySpec::at(2).with(access::READ)],
        group: Group::Dataflow,
        acl: ADMIN,
        summary: "Derive a set of those elements of another one for which a condition holds",
        complexity: "O(N) where N is the size of the source",
        example: "FILTER.BIND large numbers x>10",
        run: filter_bind,
        ..Command::BASE
    },
    Command {
        name: "union.bind",
        arity: -4,
        syntax: "target source source [source ...]",
        flags: flag::WRITE | flag::DENYOOM | flag::ADMIN,
        keys: &[KeySpec::ONE.with(access::REPLACE), KeySpec::from(2).with(access::READ)],
        group: Group::Dataflow,
        acl: ADMIN,
        summary: "Derive a set of the elements of several others",
        complexity: "O(N) where N is the size of all sources",
        example: "UNION.BIND all odd even",
        run: union_bind,
        ..Command::BASE
    },
    Command {
        name: "bind.list",
        arity: -1,
        syntax: "[pattern]",
        flags: flag::READONLY,
        group: Group::Dataflow,
        acl: acl::SLOW,
        summary: "List the bindings of the selected database, all or those whose target matches a pattern",
        complexity: "O(N) where N is the number of bindings",
        example: "BIND.LIST",
        run: bind_list,
        ..Command::BASE
    },
    Command {
        name: "bind.del",
        arity: 2,
        syntax: "target",
        flags: flag::WRITE | flag::ADMIN,
        keys: &[KeySpec::ONE.with(access::REMOVE)],
        group: Group::Dataflow,
        acl: ADMIN,
        summary: "Remove a binding and with it the derived key",
        complexity: "O(N) where N is the size of the derived key",
        example: "BIND.DEL doubled",
        run: bind_del,
        ..Command::BASE
    },
];
