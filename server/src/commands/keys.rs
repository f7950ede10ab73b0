//! Keys of any type: presence, time to live, iteration, flushing.

use std::ops::ControlFlow;

use lattis_engine::causal::Millis;
use lattis_engine::name::Cursor;

use super::{
    Call, Command, CommandError, CommandResult, Group, KeySpec, OnKey, access, acl, flag, scan,
};
use crate::glob;
use crate::net::reply::Shape;

fn del(call: &mut Call<'_, '_>) -> CommandResult {
    let mut removed = 0;
    for key in call.args.from(1) {
        removed += i64::from(call.txn.delete(call.session.db, key).on(key)?);
    }
    call.reply.integer(removed);
    Ok(())
}

fn exists(call: &mut Call<'_, '_>) -> CommandResult {
    let mut found = 0;
    for key in call.args.from(1) {
        found += i64::from(call.look(key)?);
    }
    call.reply.integer(found);
    Ok(())
}

fn type_(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    call.look(key)?;
    let kind = call.txn.kind(call.session.db, key).on(key)?;
    call.reply.simple(kind.unwrap_or("none"));
    Ok(())
}

// ---- time to live

/// What EXPIRE was told besides the time.
#[derive(Default)]
struct ExpireOptions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl ExpireOptions {
    fn parse(call: &Call<'_, '_>) -> Result<ExpireOptions, CommandError> {
        let mut options = ExpireOptions::default();
        for word in call.args.from(3) {
            match word.to_ascii_uppercase().as_slice() {
                b"NX" => options.nx = true,
                b"XX" => options.xx = true,
                b"GT" => options.gt = true,
                b"LT" => options.lt = true,
                _ => {
                    let mut text = b"ERR Unsupported option ".to_vec();
                    text.extend_from_slice(super::error::c_string(word));
                    return Err(CommandError::Text(text));
                }
            }
        }
        if options.nx && (options.xx || options.gt || options.lt) {
            return Err(CommandError::Fixed(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if options.gt && options.lt {
            return Err(CommandError::Fixed(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(options)
    }

    /// Whether the new deadline may replace the current one; none at all is later than any.
    fn allow(&self, current: Option<i64>, new: i64) -> bool {
        !(self.nx && current.is_some()
            || self.xx && current.is_none()
            || self.gt && current.is_none_or(|current| new <= current)
            || self.lt && current.is_some_and(|current| new >= current))
    }
}

/// EXPIRE and its kin.
fn expire_generic(
    call: &mut Call<'_, '_>,
    name: &str,
    seconds: bool,
    relative: bool,
) -> CommandResult {
    let (db, key) = (call.session.db, call.args.at(1));
    let options = ExpireOptions::parse(call)?;
    let number = call.integer(2)?;
    let now = i64::try_from(call.txn.now().0).unwrap_or(i64::MAX);
    let deadline = number
        .checked_mul(if seconds { 1000 } else { 1 })
        .and_then(|ms| if relative { ms.checked_add(now) } else { Some(ms) })
        .ok_or_else(|| {
            CommandError::text(format!("ERR invalid expire time in '{name}' command"))
        })?;
    let Some(current) = call.txn.deadline(db, key).on(key)? else {
        call.reply.integer(0);
        return Ok(());
    };
    let current = current.map(|at| i64::try_from(at.0).unwrap_or(i64::MAX));
    if !options.allow(current, deadline) {
        call.reply.integer(0);
        return Ok(());
    }
    let changed = if deadline <= now {
        call.txn.delete(db, key).on(key)?
    } else {
        let deadline = Millis(u64::try_from(deadline).unwrap_or(0));
        call.txn.expire(db, key, Some(deadline)).on(key)?
    };
    call.reply.integer(i64::from(changed));
    Ok(())
}

fn expire(call: &mut Call<'_, '_>) -> CommandResult {
    expire_generic(call, "expire", true, true)
}

fn pexpire(call: &mut Call<'_, '_>) -> CommandResult {
    expire_generic(call, "pexpire", false, true)
}

fn expireat(call: &mut Call<'_, '_>) -> CommandResult {
    expire_generic(call, "expireat", true, false)
}

fn pexpireat(call: &mut Call<'_, '_>) -> CommandResult {
    expire_generic(call, "pexpireat", false, false)
}

/// TTL and its kin.
fn ttl_generic(call: &mut Call<'_, '_>, seconds: bool, relative: bool) -> CommandResult {
    let key = call.args.at(1);
    call.look(key)?;
    let answer = match call.txn.deadline(call.session.db, key).on(key)? {
        None => -2,
        Some(None) => -1,
        Some(Some(deadline)) => {
            let from = if relative { call.txn.now().0 } else { 0 };
            let ms = deadline.0.saturating_sub(from);
            let shown = if seconds { ms.saturating_add(500) / 1000 } else { ms };
            i64::try_from(shown).unwrap_or(i64::MAX)
        }
    };
    call.reply.integer(answer);
    Ok(())
}

fn ttl(call: &mut Call<'_, '_>) -> CommandResult {
    ttl_generic(call, true, true)
}

fn pttl(call: &mut Call<'_, '_>) -> CommandResult {
    ttl_generic(call, false, true)
}

fn expiretime(call: &mut Call<'_, '_>) -> CommandResult {
    ttl_generic(call, true, false)
}

fn pexpiretime(call: &mut Call<'_, '_>) -> CommandResult {
    ttl_generic(call, false, false)
}

fn persist(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    let changed = call.txn.expire(call.session.db, key, None).on(key)?;
    call.reply.integer(i64::from(changed));
    Ok(())
}

// ---- iteration

fn keys(call: &mut Call<'_, '_>) -> CommandResult {
    let pattern = call.args.at(1);
    let opened = call.reply.open(Shape::Array, 0);
    let mut len = 0;
    let reply = &mut call.reply;
    let visit = &mut |key: &[u8], _| {
        if glob::matches(pattern, key) {
            reply.bulk(key);
            len += 1;
        }
        ControlFlow::Continue(())
    };
    call.txn.keys(call.session.db, Cursor::START, visit).on(b"")?;
    call.reply.finish(opened, len);
    Ok(())
}

fn dbsize(call: &mut Call<'_, '_>) -> CommandResult {
    let size = call.txn.db_size(call.session.db).on(b"")?;
    call.reply.count(size);
    Ok(())
}

// ---- flushing

/// ASYNC and SYNC mean the same here: a flush is one effect, and space is reclaimed later.
fn check_flush_mode(call: &Call<'_, '_>) -> CommandResult {
    let mode = call.args.at(1);
    let known = mode.eq_ignore_ascii_case(b"ASYNC") || mode.eq_ignore_ascii_case(b"SYNC");
    if call.args.len() == 1 || (call.args.len() == 2 && known) {
        Ok(())
    } else {
        Err(CommandError::SYNTAX)
    }
}

fn flushdb(call: &mut Call<'_, '_>) -> CommandResult {
    check_flush_mode(call)?;
    let db = call.session.db;
    call.txn.flush(db).on(b"")?;
    call.reply.ok();
    Ok(())
}

fn flushall(call: &mut Call<'_, '_>) -> CommandResult {
    check_flush_mode(call)?;
    for db in 0..call.world.config.databases {
        call.txn.flush(db).on(b"")?;
    }
    call.reply.ok();
    Ok(())
}

/// The group's records.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "del",
        arity: -2,
        syntax: "key [key ...]",
        flags: flag::WRITE,
        keys: &[KeySpec::ALL.with(access::REMOVE)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::WRITE | acl::SLOW,
        summary: "Delete keys",
        since: "1.0.0",
        complexity: "O(N) where N is the number of keys",
        example: "DEL greeting",
        run: del,
        ..Command::BASE
    },
    Command {
        name: "unlink",
        arity: -2,
        syntax: "key [key ...]",
        flags: flag::WRITE | flag::FAST,
        keys: &[KeySpec::ALL.with(access::REMOVE)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::WRITE | acl::FAST,
        summary: "Delete keys; here the same as DEL, which is O(1) on the log",
        since: "4.0.0",
        complexity: "O(N) where N is the number of keys",
        example: "UNLINK greeting",
        run: del,
        ..Command::BASE
    },
    Command {
        name: "exists",
        arity: -2,
        syntax: "key [key ...]",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ALL.with(access::LOOK)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::READ | acl::FAST,
        summary: "Determine if a key exists",
        since: "1.0.0",
        complexity: "O(N) where N is the number of keys to check",
        example: "EXISTS greeting",
        run: exists,
        ..Command::BASE
    },
    Command {
        name: "type",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::LOOK)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::READ | acl::FAST,
        summary: "Determine the type stored at key",
        since: "1.0.0",
        complexity: "O(1)",
        example: "TYPE greeting",
        run: type_,
        ..Command::BASE
    },
    Command {
        name: "expire",
        arity: -3,
        syntax: "key seconds [condition: NX | XX | GT | LT]",
        flags: flag::WRITE | flag::FAST,
        keys: &[KeySpec::ONE.with(access::UPDATE)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::WRITE | acl::FAST,
        summary: "Set a key's time to live in seconds",
        since: "1.0.0",
        complexity: "O(1)",
        example: "EXPIRE greeting 60",
        run: expire,
        ..Command::BASE
    },
    Command {
        name: "pexpire",
        arity: -3,
        syntax: "key milliseconds [condition: NX | XX | GT | LT]",
        flags: flag::WRITE | flag::FAST,
        keys: &[KeySpec::ONE.with(access::UPDATE)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::WRITE | acl::FAST,
        summary: "Set a key's time to live in milliseconds",
        since: "2.6.0",
        complexity: "O(1)",
        example: "PEXPIRE greeting 60000",
        run: pexpire,
        ..Command::BASE
    },
    Command {
        name: "expireat",
        arity: -3,
        syntax: "key unix-time-seconds [condition: NX | XX | GT | LT]",
        flags: flag::WRITE | flag::FAST,
        keys: &[KeySpec::ONE.with(access::UPDATE)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::WRITE | acl::FAST,
        summary: "Set the expiration for a key as a UNIX timestamp",
        since: "1.2.0",
        complexity: "O(1)",
        example: "EXPIREAT greeting 4102444800",
        run: expireat,
        ..Command::BASE
    },
    Command {
        name: "pexpireat",
        arity: -3,
        syntax: "key unix-time-milliseconds [condition: NX | XX | GT | LT]",
        flags: flag::WRITE | flag::FAST,
        keys: &[KeySpec::ONE.with(access::UPDATE)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::WRITE | acl::FAST,
        summary: "Set the expiration for a key as a UNIX timestamp specified in milliseconds",
        since: "2.6.0",
        complexity: "O(1)",
        example: "PEXPIREAT greeting 4102444800000",
        run: pexpireat,
        ..Command::BASE
    },
    Command {
        name: "ttl",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::READ | acl::FAST,
        summary: "Get the time to live for a key in seconds",
        since: "1.0.0",
        complexity: "O(1)",
        example: "TTL greeting",
        run: ttl,
        ..Command::BASE
    },
    Command {
        name: "pttl",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::READ | acl::FAST,
        summary: "Get the time to live for a key in milliseconds",
        since: "2.6.0",
        complexity: "O(1)",
        example: "PTTL greeting",
        run: pttl,
        ..Command::BASE
    },
    Command {
        name: "expiretime",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::READ | acl::FAST,
        summary: "Get the expiration Unix timestamp for a key",
        since: "7.0.0",
        complexity: "O(1)",
        example: "EXPIRETIME greeting",
        run: expiretime,
        ..Command::BASE
    },
    Command {
        name: "pexpiretime",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::READ | acl::FAST,
        summary: "Get the expiration Unix timestamp for a key in milliseconds",
        since: "7.0.0",
        complexity: "O(1)",
        example: "PEXPIRETIME greeting",
        run: pexpiretime,
        ..Command::BASE
    },
    Command {
        name: "persist",
        arity: 2,
        syntax: "key",
        flags: flag::WRITE | flag::FAST,
        keys: &[KeySpec::ONE.with(access::UPDATE)],
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::WRITE | acl::FAST,
        summary: "Remove the expiration from a key",
        since: "2.2.0",
        complexity: "O(1)",
        example: "PERSIST greeting",
        run: persist,
        ..Command::BASE
    },
    Command {
        name: "keys",
        arity: 2,
        syntax: "pattern",
        flags: flag::READONLY,
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::READ | acl::SLOW | acl::DANGEROUS,
        summary: "Find all keys that match a pattern",
        since: "1.0.0",
        complexity: "O(N) where N is the number of keys in the database",
        example: "KEYS user:*",
        run: keys,
        ..Command::BASE
    },
    Command {
        name: "scan",
        arity: -2,
        syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        flags: flag::READONLY,
        group: Group::Generic,
        acl: acl::KEYSPACE | acl::READ | acl::SLOW,
        summary: "Iterate the keys of the selected database",
        since: "2.8.0",
        complexity: "O(1) for each key that is looked at",
        example: "SCAN 0",
        run: scan::scan,
        ..Command::BASE
    },
    Command {
        name: "dbsize",
        arity: 1,
        flags: flag::READONLY | flag::FAST,
        group: Group::Server,
        acl: acl::KEYSPACE | acl::READ | acl::FAST,
        summary: "Return the number of keys in the selected database",
        since: "1.0.0",
        complexity: "O(1)",
        example: "DBSIZE",
        run: dbsize,
        ..Command::BASE
    },
    Command {
        name: "flushdb",
        arity: -1,
        syntax: "[async: ASYNC | SYNC]",
        flags: flag::WRITE,
        group: Group::Server,
        acl: acl::KEYSPACE | acl::WRITE | acl::SLOW | acl::DANGEROUS,
        summary: "Remove all keys of the selected database",
        since: "1.0.0",
        complexity: "O(1) until the space is reclaimed",
        example: "FLUSHDB",
        run: flushdb,
        ..Command::BASE
    },
    Command {
        name: "flushall",
        arity: -1,
        syntax: "[async: ASYNC | SYNC]",
        flags: flag::WRITE,
        group: Group::Server,
        acl: acl::KEYSPACE | acl::WRITE | acl::SLOW | acl::DANGEROUS,
        summary: "Remove all keys from all databases",
        since: "1.0.0",
        complexity: "O(1) until the space is reclaimed",
        example: "FLUSHALL",
        run: flushall,
        ..Command::BASE
    },
];
