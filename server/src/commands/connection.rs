//! The connection: greeting, naming, selecting, leaving.

use bytes::Bytes;

use super::{Call, Command, CommandError, CommandResult, Group, acl, flag};
use crate::net::request::integer;
use crate::session::Silence;

/// The version of Redis whose replies are given.
pub const REDIS_VERSION: &str = "7.0.15";

fn ping(call: &mut Call<'_, '_>) -> CommandResult {
    match call.args.len() {
        1 => call.reply.simple("PONG"),
        2 => call.reply.bulk(call.args.at(1)),
        _ => return Err(CommandError::arity("ping")),
    }
    Ok(())
}

fn echo(call: &mut Call<'_, '_>) -> CommandResult {
    call.reply.bulk(call.args.at(1));
    Ok(())
}

fn select(call: &mut Call<'_, '_>) -> CommandResult {
    let number = call.integer(1)?;
    let db = u16::try_from(number)
        .ok()
        .filter(|db| *db < call.world.config.databases)
        .ok_or(CommandError::Fixed("ERR DB index is out of range"))?;
    call.session.db = db;
    call.reply.ok();
    Ok(())
}

const WRONG_PASSWORD: CommandError =
    CommandError::Fixed("WRONGPASS invalid username-password pair or user is disabled.");

/// There is one user. Without a password, any will do.
fn authenticate(call: &mut Call<'_, '_>, user: &[u8], password: &[u8]) -> CommandResult {
    if user != b"default" || !call.world.config.admits(password) {
        return Err(WRONG_PASSWORD);
    }
    call.session.authenticated = true;
    Ok(())
}

fn auth(call: &mut Call<'_, '_>) -> CommandResult {
    let args = call.args;
    match args.len() {
        2 if call.world.config.password.is_empty() => {
            return Err(CommandError::Fixed(
                "ERR AUTH <password> called without any password configured for the default \
                 user. Are you sure your configuration is correct?",
            ));
        }
        2 => authenticate(call, b"default", args.at(1))?,
        3 => authenticate(call, args.at(1), args.at(2))?,
        _ => return Err(CommandError::SYNTAX),
    }
    call.reply.ok();
    Ok(())
}

pub(super) fn check_name(name: &[u8]) -> CommandResult {
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        Ok(())
    } else {
        Err(CommandError::Fixed(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ))
    }
}

fn hello(call: &mut Call<'_, '_>) -> CommandResult {
    let mut resp3 = call.session.resp3;
    if let Some(version) = call.args.get(1) {
        resp3 = match integer(version) {
            Some(2) => false,
            Some(3) => true,
            Some(_) => return Err(CommandError::Fixed("NOPROTO unsupported protocol version")),
            None => {
                return Err(CommandError::Fixed(
                    "ERR Protocol version is not an integer or out of range",
                ));
            }
        };
    }
    let (mut name, mut credentials) = (None, None);
    let mut at = 2;
    while let Some(option) = call.args.get(at) {
        let more = call.args.len() - 1 - at;
        if option.eq_ignore_ascii_case(b"AUTH") && more >= 2 {
            credentials = Some((call.args.at(at + 1), call.args.at(at + 2)));
            at += 3;
        } else if option.eq_ignore_ascii_case(b"SETNAME") && more >= 1 {
            check_name(call.args.at(at + 1))?;
            name = Some(Bytes::copy_from_slice(call.args.at(at + 1)));
            at += 2;
        } else {
            return Err(CommandError::of_word("ERR Syntax error in HELLO option", option));
        }
    }
    if let Some((user, password)) = credentials {
        authenticate(call, user, password)?;
    }
    if !call.session.authenticated {
        return Err(CommandError::Fixed(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
             AUTH <user> <pass> option can be used to authenticate the client and select the \
             RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        call.session.name = name;
    }
    call.session.resp3 = resp3;
    let reply = &mut call.reply;
    reply.set_resp3(resp3);
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(if resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.count(call.session.id);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn reset(call: &mut Call<'_, '_>) -> CommandResult {
    let session = &mut *call.session;
    session.multi = None;
    call.world.watch.unwatch(session);
    session.db = 0;
    session.resp3 = false;
    session.name = Bytes::new();
    session.no_evict = false;
    session.silence = Silence::Off;
    session.authenticated = call.world.config.password.is_empty();
    call.reply.set_resp3(false);
    call.reply.simple("RESET");
    Ok(())
}

fn quit(call: &mut Call<'_, '_>) -> CommandResult {
    call.session.closing = true;
    call.reply.ok();
    Ok(())
}

/// The group's records.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "ping",
        arity: -1,
        syntax: "[message]",
        flags: flag::FAST,
        group: Group::Connection,
        acl: acl::FAST | acl::CONNECTION,
        summary: "Ping the server",
        since: "1.0.0",
        complexity: "O(1)",
        example: "PING",
        run: ping,
        ..Command::BASE
    },
    Command {
        name: "echo",
        arity: 2,
        syntax: "message",
        flags: flag::LOADING | flag::STALE | flag::FAST,
        group: Group::Connection,
        acl: acl::FAST | acl::CONNECTION,
        summary: "Echo the given string",
        since: "1.0.0",
        complexity: "O(1)",
        example: "ECHO hello",
        run: echo,
        ..Command::BASE
    },
    Command {
        name: "select",
        arity: 2,
        syntax: "index",
        flags: flag::LOADING | flag::STALE | flag::FAST,
        group: Group::Connection,
        acl: acl::FAST | acl::CONNECTION,
        summary: "Change the selected database for the current connection",
        since: "1.0.0",
        complexity: "O(1)",
        example: "SELECT 1",
        run: select,
        ..Command::BASE
    },
    Command {
        name: "auth",
        arity: -2,
        syntax: "[username] password",
        flags: flag::SESSION | flag::NO_AUTH,
        group: Group::Connection,
        acl: acl::FAST | acl::CONNECTION,
        summary: "Authenticate to the server",
        since: "1.0.0",
        complexity: "O(1)",
        example: "AUTH secret",
        run: auth,
        ..Command::BASE
    },
    Command {
        name: "hello",
        arity: -1,
        syntax: "[arguments: protover [AUTH username password] [SETNAME clientname]]",
        flags: flag::SESSION | flag::NO_AUTH,
        group: Group::Connection,
        acl: acl::FAST | acl::CONNECTION,
        summary: "Choose the protocol version and introduce the client",
        since: "6.0.0",
        complexity: "O(1)",
        example: "HELLO 3",
        run: hello,
        ..Command::BASE
    },
    Command {
        name: "reset",
        arity: 1,
        flags: flag::SESSION | flag::NO_AUTH | flag::UNQUEUED,
        group: Group::Connection,
        acl: acl::FAST | acl::CONNECTION,
        summary: "Reset the connection",
        since: "6.2.0",
        complexity: "O(1)",
        example: "RESET",
        run: reset,
        ..Command::BASE
    },
    Command {
        name: "quit",
        arity: -1,
        flags: flag::SESSION | flag::NO_AUTH | flag::UNQUEUED,
        group: Group::Connection,
        acl: acl::FAST | acl::CONNECTION,
        summary: "Close the connection",
        since: "1.0.0",
        complexity: "O(1)",
        example: "QUIT",
        run: quit,
        ..Command::BASE
    },
];
