//! The connection: greeting, naming, selecting, leaving.

use std::fmt::Write as _;

use bytes::Bytes;

use super::{Call, Command, CommandError, CommandResult, Group, acl, flag, help};
use crate::net::request::integer;
use crate::world::{Client, World};

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

fn check_name(name: &[u8]) -> CommandResult {
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
            let mut text = b"ERR Syntax error in HELLO option '".to_vec();
            text.extend_from_slice(option);
            text.push(b'\'');
            return Err(CommandError::Text(text));
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

// ---- CLIENT

fn client_setname(call: &mut Call<'_, '_>) -> CommandResult {
    check_name(call.args.at(2))?;
    call.session.name = Bytes::copy_from_slice(call.args.at(2));
    call.reply.ok();
    Ok(())
}

fn client_getname(call: &mut Call<'_, '_>) -> CommandResult {
    let name = &call.session.name;
    call.reply.bulk_or_null((!name.is_empty()).then_some(name));
    Ok(())
}

fn client_setinfo(call: &mut Call<'_, '_>) -> CommandResult {
    let (option, value) = (call.args.at(2), call.args.at(3));
    let (target, name) = if option.eq_ignore_ascii_case(b"LIB-NAME") {
        (&mut call.session.library_name, "lib-name")
    } else if option.eq_ignore_ascii_case(b"LIB-VER") {
        (&mut call.session.library_version, "lib-ver")
    } else {
        let mut text = b"ERR Unrecognized option '".to_vec();
        text.extend_from_slice(option);
        text.push(b'\'');
        return Err(CommandError::Text(text));
    };
    if check_name(value).is_err() {
        return Err(CommandError::text(format!(
            "ERR {name} cannot contain spaces, newlines or special characters."
        )));
    }
    *target = Bytes::copy_from_slice(value);
    call.reply.ok();
    Ok(())
}

fn client_id(call: &mut Call<'_, '_>) -> CommandResult {
    call.reply.count(call.session.id);
    Ok(())
}

fn client_no_evict(call: &mut Call<'_, '_>) -> CommandResult {
    call.session.no_evict = on_or_off(call.args.at(2))?;
    call.reply.ok();
    Ok(())
}

fn on_or_off(word: &[u8]) -> Result<bool, CommandError> {
    match word.to_ascii_lowercase().as_slice() {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(CommandError::SYNTAX),
    }
}

/// A client's line, in Redis's form.
fn describe(client: &Client, world: &World) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut flags = String::new();
    for (set, letter) in
        [(client.multi.is_some(), 'x'), (client.blocked, 'b'), (client.no_evict, 'e')]
    {
        if set {
            flags.push(letter);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let seconds = |since| world.instant.saturating_duration_since(since).as_secs();
    let multi = client.multi.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub=0 psub=0 \
         ssub=0 multi={multi} qbuf={} qbuf-free={} argv-mem=0 multi-mem={} obl=0 oll={} omem={} \
         tot-mem={} events={} cmd={} user=default redir=-1 resp={} \
         lib-name={} lib-ver={}",
        client.id,
        client.names.0,
        client.names.1,
        client.fd,
        text(&client.name),
        seconds(client.since),
        seconds(client.active),
        client.db,
        client.input,
        client.input_free,
        client.multi_bytes,
        client.chunks,
        client.output,
        client.memory,
        if client.output > 0 { "rw" } else { "r" },
        client.command,
        if client.resp3 { 3 } else { 2 },
        text(&client.library_name),
        text(&client.library_version),
    )
}

/// Brings the caller's own entry up to date.
fn refresh(call: &mut Call<'_, '_>) {
    let now = call.world.instant;
    let me = call.world.clients.iter_mut().flatten().find(|c| c.id == call.session.id);
    if let Some(client) = me {
        client.update(call.session, now);
    }
}

fn client_info(call: &mut Call<'_, '_>) -> CommandResult {
    refresh(call);
    let mut line = String::new();
    if let Some(client) = call.world.clients.iter().flatten().find(|c| c.id == call.session.id) {
        let _ = writeln!(line, "{}", describe(client, call.world));
    }
    call.reply.verbatim(line.as_bytes());
    Ok(())
}

fn client_list(call: &mut Call<'_, '_>) -> CommandResult {
    refresh(call);
    let mut ids: Option<Vec<u64>> = None;
    let mut none = false;
    if let Some(option) = call.args.get(2) {
        if option.eq_ignore_ascii_case(b"TYPE") && call.args.len() == 4 {
            match call.args.at(3).to_ascii_lowercase().as_slice() {
                b"normal" => {}
                b"master" | b"replica" | b"slave" | b"pubsub" => none = true,
                _ => {
                    let mut text = b"ERR Unknown client type '".to_vec();
                    text.extend_from_slice(call.args.at(3));
                    text.push(b'\'');
                    return Err(CommandError::Text(text));
                }
            }
        } else if option.eq_ignore_ascii_case(b"ID") && call.args.len() > 3 {
            let mut list = Vec::new();
            for word in call.args.from(3) {
                let id = integer(word).and_then(|id| u64::try_from(id).ok());
                list.push(id.ok_or(CommandError::Fixed("ERR Invalid client ID"))?);
            }
            ids = Some(list);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let mut clients: Vec<&Client> = call
        .world
        .clients
        .iter()
        .flatten()
        .filter(|client| !none && ids.as_ref().is_none_or(|ids| ids.contains(&client.id)))
        .collect();
    clients.sort_by_key(|client| client.id);
    let mut text = String::new();
    for client in clients {
        let _ = writeln!(text, "{}", describe(client, call.world));
    }
    call.reply.verbatim(text.as_bytes());
    Ok(())
}

fn client_help(call: &mut Call<'_, '_>) -> CommandResult {
    let lines = [
        ("GETNAME", "Return the name of the current connection."),
        ("ID", "Return the ID of the current connection."),
        ("INFO", "Return information about the current client connection."),
        ("LIST [TYPE <type>] [ID <id> ...]", "Return information about client connections."),
        ("NO-EVICT (ON|OFF)", "Protect current client connection from eviction."),
        ("SETINFO (LIB-NAME|LIB-VER) <value>", "Tell which library the client uses."),
        ("SETNAME <name>", "Assign the name <name> to the current connection."),
    ];
    help(call, "CLIENT", &lines)
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
    Command {
        name: "client",
        arity: -2,
        group: Group::Connection,
        acl: acl::SLOW,
        summary: "A container for client connection commands",
        since: "2.4.0",
        complexity: "Depends on subcommand",
        example: "CLIENT id",
        subcommands: &[
            Command {
                name: "client|id",
                arity: 2,
                flags: flag::NOSCRIPT | flag::LOADING | flag::STALE,
                group: Group::Connection,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Returns the client ID for the current connection",
                since: "5.0.0",
                complexity: "O(1)",
                example: "CLIENT ID",
                run: client_id,
                ..Command::BASE
            },
            Command {
                name: "client|info",
                arity: 2,
                flags: flag::NOSCRIPT | flag::LOADING | flag::STALE,
                group: Group::Connection,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Returns information about the current client connection.",
                since: "6.2.0",
                complexity: "O(1)",
                example: "CLIENT INFO",
                run: client_info,
                ..Command::BASE
            },
            Command {
                name: "client|list",
                arity: -2,
                syntax: "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [id: ID client-id \
                         [client-id ...]]",
                flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                group: Group::Connection,
                acl: acl::ADMIN | acl::SLOW | acl::DANGEROUS | acl::CONNECTION,
                summary: "Get the list of client connections",
                since: "2.4.0",
                complexity: "O(N) where N is the number of client connections",
                example: "CLIENT LIST",
                run: client_list,
                ..Command::BASE
            },
            Command {
                name: "client|getname",
                arity: 2,
                flags: flag::NOSCRIPT | flag::LOADING | flag::STALE,
                group: Group::Connection,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Get the current connection name",
                since: "2.6.9",
                complexity: "O(1)",
                example: "CLIENT GETNAME",
                run: client_getname,
                ..Command::BASE
            },
            Command {
                name: "client|setname",
                arity: 3,
                syntax: "connection-name",
                flags: flag::NOSCRIPT | flag::LOADING | flag::STALE,
                group: Group::Connection,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Set the current connection name",
                since: "2.6.9",
                complexity: "O(1)",
                example: "CLIENT SETNAME worker",
                run: client_setname,
                ..Command::BASE
            },
            Command {
                name: "client|setinfo",
                arity: 4,
                syntax: "<attr: LIB-NAME libname | LIB-VER libver>",
                flags: flag::NOSCRIPT | flag::LOADING | flag::STALE,
                group: Group::Connection,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Set information about the client library",
                since: "7.2.0",
                complexity: "O(1)",
                example: "CLIENT SETINFO LIB-NAME redis-py",
                run: client_setinfo,
                ..Command::BASE
            },
            Command {
                name: "client|no-evict",
                arity: 3,
                syntax: "<enabled: ON | OFF>",
                flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                group: Group::Connection,
                acl: acl::ADMIN | acl::SLOW | acl::DANGEROUS | acl::CONNECTION,
                summary: "Set client eviction mode for the current connection",
                since: "7.0.0",
                complexity: "O(1)",
                example: "CLIENT NO-EVICT on",
                run: client_no_evict,
                ..Command::BASE
            },
            Command {
                name: "client|help",
                arity: 2,
                flags: flag::LOADING | flag::STALE,
                group: Group::Connection,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Show helpful text about the different subcommands",
                since: "5.0.0",
                complexity: "O(1)",
                example: "CLIENT HELP",
                run: client_help,
                ..Command::BASE
            },
        ],
        ..Command::BASE
    },
];
