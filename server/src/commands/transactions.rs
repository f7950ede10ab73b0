//! MULTI, EXEC, DISCARD, WATCH and UNWATCH.
//!
//! A transaction is one [`Txn`](crate::data::Txn), hence part of one commit, which every node shows whole or
//! not at all. Each of its commands has a savepoint, so that one that fails undoes itself only, as in Redis;
//! but what is larger than one commit may be is refused as a whole.

use super::{Call, Command, CommandError, CommandResult, Group, KeySpec, OnKey, access, acl, flag};
use crate::dispatch::{Caller, nested};

fn multi(call: &mut Call<'_, '_>) -> CommandResult {
    if call.session.multi.is_some() {
        return Err(CommandError::Fixed("ERR MULTI calls can not be nested"));
    }
    call.session.multi = Some(Default::default());
    call.reply.ok();
    Ok(())
}

fn discard(call: &mut Call<'_, '_>) -> CommandResult {
    if call.session.multi.take().is_none() {
        return Err(CommandError::Fixed("ERR DISCARD without MULTI"));
    }
    call.world.watch.unwatch(call.session);
    call.reply.ok();
    Ok(())
}

fn exec(call: &mut Call<'_, '_>) -> CommandResult {
    let Some(queue) = call.session.multi.take() else {
        return Err(CommandError::Fixed("ERR EXEC without MULTI"));
    };
    let mut broken = call.world.watch.is_broken(call.session);
    for ((db, key), existed) in &call.session.watched {
        // A key that is due is gone, whether or not its expiry has been noticed.
        broken |= *existed && call.txn.kind(*db, key).on(key)?.is_none();
    }
    call.world.watch.unwatch(call.session);
    if queue.failed {
        return Err(CommandError::Fixed(
            "EXECABORT Transaction discarded because of previous errors.",
        ));
    }
    if broken {
        call.reply.null_array();
        return Ok(());
    }
    call.reply.array(queue.len());
    for (command, args) in queue.iter() {
        nested(call, Caller::Exec, command, args).map_err(|error| CommandError::aborted(&error))?;
    }
    call.session.executed = Some(queue);
    Ok(())
}

fn watch(call: &mut Call<'_, '_>) -> CommandResult {
    if call.session.multi.is_some() {
        return Err(CommandError::Fixed("ERR WATCH inside MULTI is not allowed"));
    }
    let db = call.session.db;
    for key in call.args.from(1) {
        let existed = call.txn.kind(db, key).on(key)?.is_some();
        call.world.watch.watch(call.session, db, key, existed);
    }
    call.reply.ok();
    Ok(())
}

fn unwatch(call: &mut Call<'_, '_>) -> CommandResult {
    call.world.watch.unwatch(call.session);
    call.reply.ok();
    Ok(())
}

/// The group's records.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "multi",
        arity: 1,
        flags: flag::SESSION | flag::UNQUEUED,
        group: Group::Transactions,
        acl: acl::FAST | acl::TRANSACTION,
        summary: "Mark the start of a transaction block",
        since: "1.2.0",
        complexity: "O(1)",
        example: "MULTI",
        run: multi,
        ..Command::BASE
    },
    Command {
        name: "exec",
        arity: 1,
        flags: flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::SKIP_SLOWLOG | flag::UNQUEUED,
        group: Group::Transactions,
        acl: acl::SLOW | acl::TRANSACTION,
        summary: "Execute all commands issued after MULTI",
        since: "1.2.0",
        complexity: "Depends on commands in the transaction",
        example: "EXEC",
        run: exec,
        ..Command::BASE
    },
    Command {
        name: "discard",
        arity: 1,
        flags: flag::SESSION | flag::UNQUEUED,
        group: Group::Transactions,
        acl: acl::FAST | acl::TRANSACTION,
        summary: "Discard all commands issued after MULTI",
        since: "2.0.0",
        complexity: "O(N), when N is the number of queued commands",
        example: "DISCARD",
        run: discard,
        ..Command::BASE
    },
    Command {
        name: "watch",
        arity: -2,
        syntax: "key [key ...]",
        flags: flag::SESSION | flag::UNQUEUED | flag::TRACKED,
        keys: &[KeySpec::ALL.with(access::LOOK)],
        group: Group::Transactions,
        acl: acl::FAST | acl::TRANSACTION,
        summary: "Watch the given keys to determine execution of the MULTI/EXEC block",
        since: "2.2.0",
        complexity: "O(1) for every key",
        example: "WATCH greeting",
        run: watch,
        ..Command::BASE
    },
    Command {
        name: "unwatch",
        arity: 1,
        flags: flag::SESSION,
        group: Group::Transactions,
        acl: acl::FAST | acl::TRANSACTION,
        summary: "Forget about all watched keys",
        since: "2.2.0",
        complexity: "O(1)",
        example: "UNWATCH",
        run: unwatch,
        ..Command::BASE
    },
];
