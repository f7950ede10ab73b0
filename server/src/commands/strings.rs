//! Strings and numbers.

use crate::data::Ttl;
use lattis_engine::causal::Millis;

use super::{Call, Command, CommandError, CommandResult, Group, KeySpec, OnKey, access, acl, flag};
use crate::net::output::SHARED;
use crate::stats::Counter;

/// Answers with a string; a large one lies where it is until it is sent.
fn answer(call: &mut Call<'_, '_>, key: &[u8]) -> CommandResult {
    let db = call.session.db;
    let value = call.txn.view(db, key);
    let counter = hit_or_miss(!matches!(value, Ok(None)));
    call.world.stats.add(counter, 1);
    match value.on(key)? {
        Some(value) if value.len() < SHARED => call.reply.bulk(&value),
        Some(_) => {
            let value = call.txn.get(db, key).on(key)?;
            call.reply.shared_bulk(value.unwrap_or_default());
        }
        None => call.reply.null(),
    }
    Ok(())
}

fn get(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    answer(call, key)
}

/// What SET was told besides key and value.
#[derive(Default)]
struct SetOptions {
    if_absent: bool,
    if_present: bool,
    old_value: bool,
    keep_ttl: bool,
    /// Index of the number, whether it counts seconds, whether it counts from now.
    expire: Option<(usize, bool, bool)>,
}

impl SetOptions {
    fn parse(call: &Call<'_, '_>) -> Result<SetOptions, CommandError> {
        let mut options = SetOptions::default();
        let mut at = 3;
        while let Some(word) = call.args.get(at) {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            let expire = [
                ("EX", true, true),
                ("PX", false, true),
                ("EXAT", true, false),
                ("PXAT", false, false),
            ]
            .into_iter()
            .find(|(name, _, _)| is(name));
            if is("NX") && !options.if_present {
                options.if_absent = true;
            } else if is("XX") && !options.if_absent {
                options.if_present = true;
            } else if is("GET") {
                options.old_value = true;
            } else if is("KEEPTTL") && options.expire.is_none() {
                options.keep_ttl = true;
            } else if let Some((_, seconds, relative)) = expire {
                let same = |(_, s, r)| (s, r) == (seconds, relative);
                let fits = !options.keep_ttl && options.expire.is_none_or(same);
                if !fits || call.args.get(at + 1).is_none() {
                    return Err(CommandError::SYNTAX);
                }
                at += 1;
                options.expire = Some((at, seconds, relative));
            } else {
                return Err(CommandError::SYNTAX);
            }
            at += 1;
        }
        Ok(options)
    }

    fn ttl(&self, call: &Call<'_, '_>) -> Result<Ttl, CommandError> {
        let Some((index, seconds, relative)) = self.expire else {
            return Ok(if self.keep_ttl { Ttl::Keep } else { Ttl::Clear });
        };
        let number = call.integer(index)?;
        let now = i64::try_from(call.txn.now().0).unwrap_or(i64::MAX);
        let deadline = number
            .checked_mul(if seconds { 1000 } else { 1 })
            .and_then(|ms| if relative { ms.checked_add(now) } else { Some(ms) });
        match deadline.map(u64::try_from) {
            Some(Ok(deadline)) if number > 0 => Ok(Ttl::At(Millis(deadline))),
            _ => Err(CommandError::Fixed("ERR invalid expire time in 'set' command")),
        }
    }
}

pub(super) fn set(call: &mut Call<'_, '_>) -> CommandResult {
    let (db, key) = (call.session.db, call.args.at(1));
    if call.args.len() == 3 {
        let value = call.args.owned(2);
        call.txn.set(db, key, value, Ttl::Clear).on(key)?;
        call.reply.ok();
        return Ok(());
    }
    let options = SetOptions::parse(call)?;
    let ttl = options.ttl(call)?;
    if options.old_value {
        let old = call.txn.get(db, key).on(key)?;
        call.reply.bulk_or_null(old.as_deref());
    }
    if options.if_absent || options.if_present {
        let found = call.txn.kind(db, key).on(key)?.is_some();
        if found == options.if_absent {
            if !options.old_value {
                call.reply.null();
            }
            return Ok(());
        }
    }
    match ttl {
        // What is written after a deadline is a new life, so a deadline in the past has to remove.
        Ttl::At(deadline) if deadline <= call.txn.now() => {
            call.txn.delete(db, key).on(key)?;
        }
        ttl => {
            let value = call.args.owned(2);
            call.txn.set(db, key, value, ttl).on(key)?;
        }
    }
    if !options.old_value {
        call.reply.ok();
    }
    Ok(())
}

fn setnx(call: &mut Call<'_, '_>) -> CommandResult {
    let (db, key) = (call.session.db, call.args.at(1));
    let absent = call.txn.kind(db, key).on(key)?.is_none();
    if absent {
        let value = call.args.owned(2);
        call.txn.set(db, key, value, Ttl::Clear).on(key)?;
    }
    call.reply.integer(i64::from(absent));
    Ok(())
}

fn mget(call: &mut Call<'_, '_>) -> CommandResult {
    call.reply.array(call.args.len() - 1);
    for key in call.args.from(1) {
        match answer(call, key) {
            Err(error) if error == CommandError::WRONG_TYPE => call.reply.null(),
            result => result?,
        }
    }
    Ok(())
}

fn mset(call: &mut Call<'_, '_>) -> CommandResult {
    if call.args.len().is_multiple_of(2) {
        return Err(CommandError::arity("mset"));
    }
    for index in (1..call.args.len()).step_by(2) {
        let key = call.args.at(index);
        let value = call.args.owned(index + 1);
        call.txn.set(call.session.db, key, value, Ttl::Clear).on(key)?;
    }
    call.reply.ok();
    Ok(())
}

/// INCR and its kin.
pub(super) fn increment(call: &mut Call<'_, '_>, by: i64) -> CommandResult {
    let key = call.args.at(1);
    let value = call.txn.increment(call.session.db, key, by).on(key)?;
    call.reply.integer(value);
    Ok(())
}

fn incr(call: &mut Call<'_, '_>) -> CommandResult {
    increment(call, 1)
}

fn decr(call: &mut Call<'_, '_>) -> CommandResult {
    increment(call, -1)
}

fn incrby(call: &mut Call<'_, '_>) -> CommandResult {
    let by = call.integer(2)?;
    increment(call, by)
}

fn decrby(call: &mut Call<'_, '_>) -> CommandResult {
    let by = call.integer(2)?.checked_neg();
    increment(call, by.ok_or(CommandError::Fixed("ERR decrement would overflow"))?)
}

fn append(call: &mut Call<'_, '_>) -> CommandResult {
    let (db, key, tail) = (call.session.db, call.args.at(1), call.args.at(2));
    // Told before anything is copied.
    let len = call.txn.view(db, key).on(key)?.map_or(0, |value| value.len()) + tail.len();
    if len as u64 > call.world.config.proto_max_bulk_len {
        return Err(CommandError::Fixed(
            "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        ));
    }
    call.txn.append(db, key, tail).on(key)?;
    call.reply.count(len as u64);
    Ok(())
}

fn strlen(call: &mut Call<'_, '_>) -> CommandResult {
    let key = call.args.at(1);
    call.look(key)?;
    let len = call.txn.view(call.session.db, key).on(key)?.map(|value| value.len() as u64);
    call.reply.count(len.unwrap_or(0));
    Ok(())
}

fn hit_or_miss(found: bool) -> Counter {
    if found { Counter::Hits } else { Counter::Misses }
}

impl Call<'_, '_> {
    /// Counts a read of a key, whatever type it has; whether it is there.
    pub(super) fn look(&mut self, key: &[u8]) -> Result<bool, CommandError> {
        let found = self.txn.kind(self.session.db, key).on(key)?.is_some();
        self.world.stats.add(hit_or_miss(found), 1);
        Ok(found)
    }
}

/// The group's records.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "get",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::READ)],
        group: Group::String,
        acl: acl::READ | acl::STRING | acl::FAST,
        summary: "Get the value of a key",
        since: "1.0.0",
        complexity: "O(1)",
        example: "GET greeting",
        run: get,
        ..Command::BASE
    },
    Command {
        name: "set",
        arity: -3,
        syntax: "key value [condition: NX | XX] [GET] \
                 [expiration: EX seconds | PX milliseconds | EXAT unix-time-seconds | \
                 PXAT unix-time-milliseconds | KEEPTTL]",
        flags: flag::WRITE | flag::DENYOOM,
        keys: &[KeySpec::ONE.with(access::DEPENDS)],
        group: Group::String,
        acl: acl::WRITE | acl::STRING | acl::SLOW,
        summary: "Set the string value of a key",
        since: "1.0.0",
        complexity: "O(1)",
        example: "SET greeting hello",
        run: set,
        ..Command::BASE
    },
    Command {
        name: "setnx",
        arity: 3,
        syntax: "key value",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::CREATE)],
        group: Group::String,
        acl: acl::WRITE | acl::STRING | acl::FAST,
        summary: "Set the value of a key, only if the key does not exist",
        since: "1.0.0",
        complexity: "O(1)",
        example: "SETNX greeting hello",
        run: setnx,
        ..Command::BASE
    },
    Command {
        name: "mget",
        arity: -2,
        syntax: "key [key ...]",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ALL.with(access::READ)],
        group: Group::String,
        acl: acl::READ | acl::STRING | acl::FAST,
        summary: "Get the values of all the given keys",
        since: "1.0.0",
        complexity: "O(N) where N is the number of keys to retrieve",
        example: "MGET a b",
        run: mget,
        ..Command::BASE
    },
    Command {
        name: "mset",
        arity: -3,
        syntax: "key value [key value ...]",
        flags: flag::WRITE | flag::DENYOOM,
        keys: &[KeySpec::PAIRS.with(access::REPLACE)],
        group: Group::String,
        acl: acl::WRITE | acl::STRING | acl::SLOW,
        summary: "Set multiple keys to multiple values",
        since: "1.0.1",
        complexity: "O(N) where N is the number of keys to set",
        example: "MSET a 1 b 2",
        run: mset,
        ..Command::BASE
    },
    Command {
        name: "incr",
        arity: 2,
        syntax: "key",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::MODIFY)],
        group: Group::String,
        acl: acl::WRITE | acl::STRING | acl::FAST,
        summary: "Increment the integer value of a key by one",
        since: "1.0.0",
        complexity: "O(1)",
        example: "INCR visits",
        run: incr,
        ..Command::BASE
    },
    Command {
        name: "decr",
        arity: 2,
        syntax: "key",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::MODIFY)],
        group: Group::String,
        acl: acl::WRITE | acl::STRING | acl::FAST,
        summary: "Decrement the integer value of a key by one",
        since: "1.0.0",
        complexity: "O(1)",
        example: "DECR visits",
        run: decr,
        ..Command::BASE
    },
    Command {
        name: "incrby",
        arity: 3,
        syntax: "key increment",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::MODIFY)],
        group: Group::String,
        acl: acl::WRITE | acl::STRING | acl::FAST,
        summary: "Increment the integer value of a key by the given amount",
        since: "1.0.0",
        complexity: "O(1)",
        example: "INCRBY visits 5",
        run: incrby,
        ..Command::BASE
    },
    Command {
        name: "decrby",
        arity: 3,
        syntax: "key decrement",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::MODIFY)],
        group: Group::String,
        acl: acl::WRITE | acl::STRING | acl::FAST,
        summary: "Decrement the integer value of a key by the given number",
        since: "1.0.0",
        complexity: "O(1)",
        example: "DECRBY visits 5",
        run: decrby,
        ..Command::BASE
    },
    Command {
        name: "append",
        arity: 3,
        syntax: "key value",
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: &[KeySpec::ONE.with(access::INSERT)],
        group: Group::String,
        acl: acl::WRITE | acl::STRING | acl::FAST,
        summary: "Append a value to a key",
        since: "2.0.0",
        complexity: "O(N) where N is the length of the value",
        example: "APPEND greeting !",
        run: append,
        ..Command::BASE
    },
    Command {
        name: "strlen",
        arity: 2,
        syntax: "key",
        flags: flag::READONLY | flag::FAST,
        keys: &[KeySpec::ONE.with(access::LOOK)],
        group: Group::String,
        acl: acl::READ | acl::STRING | acl::FAST,
        summary: "Get the length of the value stored in a key",
        since: "2.2.0",
        complexity: "O(1)",
        example: "STRLEN greeting",
        run: strlen,
        ..Command::BASE
    },
];
