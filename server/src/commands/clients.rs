//! CLIENT: what is told of clients, and what one may do to itself and to others.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::check_name;
use super::{Call, Command, CommandError, CommandResult, Group, acl, flag, help};
use crate::clients::Pause;
use crate::net::request::integer;
use crate::session::{Queue, Session, Silence};

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
        return Err(CommandError::of_word("ERR Unrecognized option", option));
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
fn describe(client: &Session, now: Instant) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut flags = String::new();
    for (set, letter) in
        [(client.multi.is_some(), 'x'), (client.waits, 'b'), (client.no_evict, 'e')]
    {
        if set {
            flags.push(letter);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let seconds = |since| now.saturating_duration_since(since).as_secs();
    let multi = client.multi.as_ref().map(Queue::len);
    let multi = multi.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    let sizes = client.sizes;
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
        sizes.input,
        sizes.input_free,
        client.multi.as_ref().map_or(0, Queue::size),
        sizes.chunks,
        sizes.output,
        sizes.memory,
        if sizes.output > 0 { "rw" } else { "r" },
        client.last_command,
        if client.resp3 { 3 } else { 2 },
        text(&client.library_name),
        text(&client.library_version),
    )
}

fn client_info(call: &mut Call<'_, '_>) -> CommandResult {
    let line = describe(call.session, call.world.instant) + "\n";
    call.reply.verbatim(line.as_bytes());
    Ok(())
}

/// Whether a type of clients is that of all that there are.
fn is_normal(word: &[u8]) -> Result<bool, CommandError> {
    match word.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(true),
        b"master" | b"replica" | b"slave" | b"pubsub" => Ok(false),
        _ => Err(CommandError::of_word("ERR Unknown client type", word)),
    }
}

fn client_list(call: &mut Call<'_, '_>) -> CommandResult {
    let mut ids: Option<Vec<u64>> = None;
    let mut any = true;
    if let Some(option) = call.args.get(2) {
        if option.eq_ignore_ascii_case(b"TYPE") && call.args.len() == 4 {
            any = is_normal(call.args.at(3))?;
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
    let others = call.world.clients.others().map(|(_, conn)| &conn.session);
    let mut clients: Vec<&Session> = others
        .chain([&*call.session])
        .filter(|client| any && ids.as_ref().is_none_or(|ids| ids.contains(&client.id)))
        .collect();
    clients.sort_by_key(|client| client.id);
    let mut text = String::new();
    for client in clients {
        let _ = writeln!(text, "{}", describe(client, call.world.instant));
    }
    call.reply.verbatim(text.as_bytes());
    Ok(())
}

/// Which clients are to be killed.
#[derive(Default)]
struct Filter<'f> {
    id: Option<u64>,
    address: Option<&'f [u8]>,
    own_address: Option<&'f [u8]>,
    /// None at all: of a type that there is not here.
    none: bool,
    /// The one that asks as well.
    itself: bool,
}

impl<'f> Filter<'f> {
    fn parse(call: &Call<'f, '_>) -> Result<Filter<'f>, CommandError> {
        let mut filter = Filter::default();
        for at in (2..call.args.len()).step_by(2) {
            let option = call.args.at(at);
            let value = call.args.get(at + 1).ok_or(CommandError::SYNTAX)?;
            match option.to_ascii_uppercase().as_slice() {
                b"ID" => {
                    let id = integer(value).and_then(|id| u64::try_from(id).ok());
                    filter.id = Some(
                        id.filter(|id| *id > 0)
                            .ok_or(CommandError::Fixed("ERR client-id should be greater than 0"))?,
                    );
                }
                b"TYPE" => filter.none |= !is_normal(value)?,
                b"ADDR" => filter.address = Some(value),
                b"LADDR" => filter.own_address = Some(value),
                b"USER" if value == b"default" => {}
                b"USER" => {
                    return Err(CommandError::of_word("ERR No such user", value));
                }
                b"SKIPME" => {
                    filter.itself = match value.to_ascii_lowercase().as_slice() {
                        b"yes" => false,
                        b"no" => true,
                        _ => return Err(CommandError::SYNTAX),
                    };
                }
                _ => return Err(CommandError::SYNTAX),
            }
        }
        Ok(filter)
    }

    fn takes(&self, client: &Session) -> bool {
        let (address, own_address) = (client.names.0.as_bytes(), client.names.1.as_bytes());
        !self.none
            && self.id.is_none_or(|id| client.id == id)
            && self.address.is_none_or(|it| it == address)
            && self.own_address.is_none_or(|it| it == own_address)
    }
}

fn client_kill(call: &mut Call<'_, '_>) -> CommandResult {
    // With one argument that is an address, and somebody has to be there.
    let old = call.args.len() == 3;
    let filter = match old {
        true => Filter { address: Some(call.args.at(2)), itself: true, ..Filter::default() },
        false => Filter::parse(call)?,
    };
    let others = call.world.clients.others();
    let slots: Vec<usize> =
        others.filter(|(_, conn)| filter.takes(&conn.session)).map(|(slot, _)| slot).collect();
    let itself = filter.itself && filter.takes(call.session);
    let killed = slots.len() + usize::from(itself);
    if old && killed == 0 {
        return Err(CommandError::Fixed("ERR No such client"));
    }
    slots.into_iter().for_each(|slot| call.world.clients.kill(slot));
    call.session.closing |= itself;
    match old {
        true => call.reply.ok(),
        false => call.reply.count(killed as u64),
    }
    Ok(())
}

fn client_reply(call: &mut Call<'_, '_>) -> CommandResult {
    match call.args.at(2).to_ascii_lowercase().as_slice() {
        b"on" => {
            call.session.silence = Silence::Off;
            call.reply.ok();
        }
        b"off" => call.session.silence = Silence::On,
        b"skip" if call.session.silence == Silence::On => {}
        b"skip" => call.session.silence = Silence::Next,
        _ => return Err(CommandError::SYNTAX),
    }
    Ok(())
}

/// The longest pause.
const AGES: u64 = 1 << 40;

fn client_pause(call: &mut Call<'_, '_>) -> CommandResult {
    let all = match call.args.get(3).map(<[u8]>::to_ascii_lowercase).as_deref() {
        None | Some(b"all") => true,
        Some(b"write") => false,
        Some(_) => {
            return Err(CommandError::Fixed("ERR CLIENT PAUSE mode must be WRITE or ALL"));
        }
    };
    let timeout = integer(call.args.at(2))
        .ok_or(CommandError::Fixed("ERR timeout is not an integer or out of range"))?;
    let timeout =
        u64::try_from(timeout).map_err(|_| CommandError::Fixed("ERR timeout is negative"))?;
    let until = call.world.instant + Duration::from_millis(timeout.min(AGES));
    call.world.clients.pause(Pause { until, all });
    call.reply.ok();
    Ok(())
}

fn client_unpause(call: &mut Call<'_, '_>) -> CommandResult {
    call.world.clients.unpause(None);
    call.reply.ok();
    Ok(())
}

/// Nobody is told of what others have changed.
fn client_getredir(call: &mut Call<'_, '_>) -> CommandResult {
    call.reply.integer(-1);
    Ok(())
}

fn client_help(call: &mut Call<'_, '_>) -> CommandResult {
    let lines = [
        ("GETNAME", "Return the name of the current connection."),
        ("GETREDIR", "Return the client ID we are redirecting to when tracking is enabled."),
        ("ID", "Return the ID of the current connection."),
        ("INFO", "Return information about the current client connection."),
        ("KILL <ip:port>", "Kill connection made from <ip:port>."),
        (
            "KILL <option> <value> [<option> <value> [...]]",
            "Kill connections by ID, TYPE, ADDR, LADDR, USER; SKIPME (YES|NO): skip the current one.",
        ),
        ("LIST [TYPE <type>] [ID <id> ...]", "Return information about client connections."),
        ("NO-EVICT (ON|OFF)", "Protect current client connection from eviction."),
        (
            "PAUSE <timeout> [WRITE|ALL]",
            "Suspend all, or just write, clients for <timeout> milliseconds.",
        ),
        ("REPLY (ON|OFF|SKIP)", "Control the replies sent to the current connection."),
        ("SETINFO (LIB-NAME|LIB-VER) <value>", "Tell which library the client uses."),
        ("SETNAME <name>", "Assign the name <name> to the current connection."),
        ("UNPAUSE", "Stop the current client pause, resuming traffic."),
    ];
    help(call, "CLIENT", &lines)
}

/// The group's records.
pub(super) const COMMANDS: &[Command] = &[Command {
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
            name: "client|kill",
            arity: -3,
            syntax: "<filter: ip:port | ID client-id | TYPE <NORMAL | MASTER | REPLICA | PUBSUB> \
                         | USER username | ADDR address | LADDR own-address | SKIPME yes-no> \
                         [more: option value [option value ...]]",
            flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
            group: Group::Connection,
            acl: acl::ADMIN | acl::SLOW | acl::DANGEROUS | acl::CONNECTION,
            summary: "Kill the connection of a client",
            since: "2.4.0",
            complexity: "O(N) where N is the number of client connections",
            example: "CLIENT KILL ID 9999",
            run: client_kill,
            ..Command::BASE
        },
        Command {
            name: "client|pause",
            arity: -3,
            syntax: "timeout [mode: <WRITE | ALL>]",
            flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
            group: Group::Connection,
            acl: acl::ADMIN | acl::SLOW | acl::DANGEROUS | acl::CONNECTION,
            summary: "Stop processing commands from clients for some time",
            since: "2.9.50",
            complexity: "O(1)",
            example: "CLIENT PAUSE 100 WRITE",
            run: client_pause,
            ..Command::BASE
        },
        Command {
            name: "client|unpause",
            arity: 2,
            flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
            group: Group::Connection,
            acl: acl::ADMIN | acl::SLOW | acl::DANGEROUS | acl::CONNECTION,
            summary: "Resume processing of clients that were paused",
            since: "6.2.0",
            complexity: "O(N) Where N is the number of paused clients",
            example: "CLIENT UNPAUSE",
            run: client_unpause,
            ..Command::BASE
        },
        Command {
            name: "client|reply",
            arity: 3,
            syntax: "<on_off_skip: ON | OFF | SKIP>",
            flags: flag::NOSCRIPT | flag::LOADING | flag::STALE,
            group: Group::Connection,
            acl: acl::SLOW | acl::CONNECTION,
            summary: "Instruct the server whether to reply to commands",
            since: "3.2.0",
            complexity: "O(1)",
            example: "CLIENT REPLY ON",
            run: client_reply,
            ..Command::BASE
        },
        Command {
            name: "client|getredir",
            arity: 2,
            flags: flag::NOSCRIPT | flag::LOADING | flag::STALE,
            group: Group::Connection,
            acl: acl::SLOW | acl::CONNECTION,
            summary: "Get tracking notifications redirection client ID if any",
            since: "6.0.0",
            complexity: "O(1)",
            example: "CLIENT GETREDIR",
            run: client_getredir,
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
}];
