//! The server: INFO, CONFIG, COMMAND, TIME, MEMORY, DEBUG, SHUTDOWN.

use std::time::Duration;

use super::syntax::{self, Argument, Kind as ArgumentKind};
use super::{
    Access, Call, Command, CommandError, CommandResult, Group, KeySpec, OnKey, access, acl, all,
    find, find_in, flag, help, info, resolve,
};
use crate::config::{self, Debuggers, OPTIONS};
use crate::glob;
use crate::net::reply::{Reply, Shape};

// ---- CONFIG

fn config_get(call: &mut Call<'_, '_>) -> CommandResult {
    let patterns = call.args.skip(2);
    let matching: Vec<_> = OPTIONS
        .iter()
        .filter(|option| {
            let name = option.name.as_bytes();
            patterns.from(0).any(|pattern| glob::matches_ignoring_case(pattern, name))
        })
        .collect();
    call.reply.map(matching.len());
    for option in matching {
        call.reply.bulk(option.name.as_bytes());
        call.reply.bulk(option.get(&call.world.config).as_bytes());
    }
    Ok(())
}

fn config_set(call: &mut Call<'_, '_>) -> CommandResult {
    if !call.args.len().is_multiple_of(2) {
        return Err(CommandError::arity("config|set"));
    }
    let failed = |name: &str, why: &str| {
        CommandError::text(format!(
            "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"
        ))
    };
    let mut wanted = Vec::new();
    for at in (2..call.args.len()).step_by(2) {
        let name = String::from_utf8_lossy(call.args.at(at));
        let Some(option) = config::find(&name) else {
            return Err(CommandError::text(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
            )));
        };
        if !option.live {
            return Err(failed(&name, "can't set immutable config"));
        }
        if wanted.iter().any(|(name, _)| *name == option.name) {
            return Err(failed(&name, "duplicate parameter"));
        }
        wanted.push((option.name, at));
    }
    // All or nothing.
    let mut changed = call.world.config.clone();
    for (name, at) in wanted {
        let value = String::from_utf8_lossy(call.args.at(at + 1));
        if let Some(option) = config::find(name) {
            let shown = String::from_utf8_lossy(call.args.at(at));
            option.set(&mut changed, &value).map_err(|why| failed(&shown, &why))?;
        }
    }
    call.world.config = changed;
    call.reply.ok();
    Ok(())
}

fn config_resetstat(call: &mut Call<'_, '_>) -> CommandResult {
    call.world.stats.reset(call.txn.engine().expired_keys());
    call.reply.ok();
    Ok(())
}

fn config_help(call: &mut Call<'_, '_>) -> CommandResult {
    let lines = [
        ("GET <pattern>", "Return parameters matching the glob-like <pattern> and their values."),
        ("SET <directive> <value>", "Set the configuration <directive> to <value>."),
        ("RESETSTAT", "Reset statistics reported by the INFO command."),
    ];
    help(call, "CONFIG", &lines)
}

// ---- COMMAND

/// COMMAND without a subcommand.
fn command(call: &mut Call<'_, '_>) -> CommandResult {
    call.reply.array(all().count());
    for command in all() {
        describe(&mut call.reply, command);
    }
    Ok(())
}

/// One command as COMMAND INFO shows it.
fn describe(reply: &mut Reply<'_>, command: &Command) {
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(i64::from(command.arity));
    let named = |names: &'static [(u32, &'static str)], bits: u32| {
        names.iter().filter(move |(bit, _)| bits & bit != 0).map(|(_, name)| *name)
    };
    reply.set(named(&flag::NAMES, command.flags).count());
    named(&flag::NAMES, command.flags).for_each(|name| reply.simple(name));
    // The range that older clients know: from the first of all keys to the last.
    let (first, last) = (command.keys.first(), command.keys.last());
    reply.integer(first.map_or(0, |keys| i64::from(keys.first)));
    reply.integer(last.map_or(0, |keys| i64::from(keys.last)));
    reply.integer(last.map_or(0, |keys| i64::from(keys.step)));
    reply.set(named(&acl::NAMES, command.acl).count());
    named(&acl::NAMES, command.acl).for_each(|name| reply.simple(&format!("@{name}")));
    reply.array(0);
    describe_keys(reply, command);
    reply.array(command.subcommands.len());
    for subcommand in command.subcommands {
        describe(reply, subcommand);
    }
}

fn describe_keys(reply: &mut Reply<'_>, command: &Command) {
    reply.array(command.keys.len());
    for keys in command.keys {
        // The range's last key counts from its first one.
        let last = if keys.last < 0 { keys.last } else { keys.last - keys.first };
        reply.map(3);
        reply.bulk(b"flags");
        reply.set(keys.access.len());
        keys.access.iter().for_each(|flag| reply.simple(flag));
        reply.bulk(b"begin_search");
        reply.map(2);
        reply.bulk(b"type");
        reply.bulk(b"index");
        reply.bulk(b"spec");
        reply.map(1);
        reply.bulk(b"index");
        reply.integer(i64::from(keys.first));
        reply.bulk(b"find_keys");
        reply.map(2);
        reply.bulk(b"type");
        reply.bulk(b"range");
        reply.bulk(b"spec");
        reply.map(3);
        for (name, value) in [("lastkey", last), ("keystep", keys.step), ("limit", 0)] {
            reply.bulk(name.as_bytes());
            reply.integer(i64::from(value));
        }
    }
}

fn command_count(call: &mut Call<'_, '_>) -> CommandResult {
    call.reply.count(all().count() as u64);
    Ok(())
}

/// The command of a name, `container|name` included.
fn named(name: &[u8]) -> Option<&'static Command> {
    match name.iter().position(|b| *b == b'|') {
        None => find(name),
        Some(bar) => {
            let container = find(name.get(..bar)?)?;
            find_in(container, name.get(bar + 1..)?)
        }
    }
}

fn command_info(call: &mut Call<'_, '_>) -> CommandResult {
    if call.args.len() == 2 {
        return command(call);
    }
    call.reply.array(call.args.len() - 2);
    for name in call.args.from(2) {
        match named(name) {
            Some(command) => describe(&mut call.reply, command),
            None => call.reply.null_array(),
        }
    }
    Ok(())
}

fn command_list(call: &mut Call<'_, '_>) -> CommandResult {
    let filter = match call.args.len() {
        2 => None,
        5 if call.args.at(2).eq_ignore_ascii_case(b"FILTERBY") => {
            let kind = call.args.at(3).to_ascii_lowercase();
            if !matches!(kind.as_slice(), b"module" | b"aclcat" | b"pattern") {
                return Err(CommandError::SYNTAX);
            }
            Some((kind, call.args.at(4)))
        }
        _ => return Err(CommandError::SYNTAX),
    };
    let wanted = |command: &Command| match &filter {
        None => true,
        Some((kind, value)) => match kind.as_slice() {
            b"pattern" => glob::matches_ignoring_case(value, command.name.as_bytes()),
            b"aclcat" => acl::NAMES.iter().any(|(bit, name)| {
                value.eq_ignore_ascii_case(name.as_bytes()) && command.acl & bit != 0
            }),
            _ => false,
        },
    };
    let opened = call.reply.open(Shape::Set, 0);
    let mut len = 0;
    for command in all().flat_map(|c| std::iter::once(c).chain(c.subcommands)) {
        // As in Redis, only filtered lists show subcommands.
        if wanted(command) && (filter.is_some() || !command.name.contains('|')) {
            call.reply.bulk(command.name.as_bytes());
            len += 1;
        }
    }
    call.reply.finish(opened, len);
    Ok(())
}

fn command_docs(call: &mut Call<'_, '_>) -> CommandResult {
    let mut commands: Vec<&Command> = Vec::new();
    if call.args.len() == 2 {
        commands.extend(all());
    } else {
        commands.extend(call.args.from(2).filter_map(named));
    }
    call.reply.map(commands.len());
    for command in commands {
        document(&mut call.reply, command);
    }
    Ok(())
}

fn document(reply: &mut Reply<'_>, command: &Command) {
    // The tests parse every text.
    let arguments = syntax::parse(command.syntax).unwrap_or_default();
    let nested = [!arguments.is_empty(), !command.subcommands.is_empty()];
    reply.bulk(command.name.as_bytes());
    reply.map(4 + nested.into_iter().filter(|there| *there).count());
    for (field, value) in [
        ("summary", command.summary),
        ("since", command.since),
        ("group", command.group.name()),
        ("complexity", command.complexity),
    ] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    if !arguments.is_empty() {
        reply.bulk(b"arguments");
        document_arguments(reply, command, &arguments, &mut 0);
    }
    if !command.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(command.subcommands.len());
        for subcommand in command.subcommands {
            document(reply, subcommand);
        }
    }
}

/// `keys`: how many arguments before these are keys.
fn document_arguments(
    reply: &mut Reply<'_>,
    command: &Command,
    arguments: &[Argument],
    keys: &mut usize,
) {
    reply.array(arguments.len());
    for it in arguments {
        let is_key = it.kind == ArgumentKind::Key;
        let flags = [
            (it.optional, "optional"),
            (it.multiple, "multiple"),
            (it.multiple_token, "multiple_token"),
        ];
        let flags: Vec<&str> =
            flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
        let more = [is_key, it.token.is_some(), !flags.is_empty(), !it.parts.is_empty()];
        reply.map(2 + more.into_iter().filter(|there| *there).count());
        reply.bulk(b"name");
        reply.bulk(it.name.as_bytes());
        reply.bulk(b"type");
        reply.bulk(it.kind.name().as_bytes());
        if is_key {
            // Where there are several ranges of keys, each argument has its own, and the last one the rest.
            reply.bulk(b"key_spec_index");
            reply.count((*keys).min(command.keys.len().saturating_sub(1)) as u64);
            *keys += 1;
        }
        if let Some(token) = &it.token {
            reply.bulk(b"token");
            reply.bulk(token.as_bytes());
        }
        if !flags.is_empty() {
            reply.bulk(b"flags");
            reply.set(flags.len());
            flags.into_iter().for_each(|flag| reply.simple(flag));
        }
        if !it.parts.is_empty() {
            reply.bulk(b"arguments");
            document_arguments(reply, command, &it.parts, keys);
        }
    }
}

/// The keys of the request behind the subcommand's name, each with what is done with it.
fn keys_of_request<'a>(call: &Call<'a, '_>) -> Result<Vec<(&'a [u8], Access)>, CommandError> {
    let request = call.args.skip(2);
    let command = match resolve(request) {
        Ok(command) => command,
        Err(_) if named(request.at(0)).is_some() => {
            return Err(CommandError::Fixed(
                "ERR Invalid number of arguments specified for command",
            ));
        }
        Err(_) => return Err(CommandError::Fixed("ERR Invalid command specified")),
    };
    let specs = command.keys.iter();
    let found: Vec<_> =
        specs.flat_map(|spec| spec.keys(request).map(|key| (key, spec.access))).collect();
    if found.is_empty() {
        return Err(CommandError::Fixed("ERR The command has no key arguments"));
    }
    Ok(found)
}

fn command_getkeys(call: &mut Call<'_, '_>) -> CommandResult {
    let found = keys_of_request(call)?;
    call.reply.array(found.len());
    found.iter().for_each(|(key, _)| call.reply.bulk(key));
    Ok(())
}

fn command_getkeysandflags(call: &mut Call<'_, '_>) -> CommandResult {
    let found = keys_of_request(call)?;
    call.reply.array(found.len());
    for (key, access) in found {
        call.reply.array(2);
        call.reply.bulk(key);
        call.reply.set(access.len());
        access.iter().for_each(|flag| call.reply.simple(flag));
    }
    Ok(())
}

fn command_help(call: &mut Call<'_, '_>) -> CommandResult {
    let lines = [
        ("(no subcommand)", "Return details about all commands."),
        ("COUNT", "Return the total number of commands in this server."),
        ("LIST", "Return a list of all commands in this server."),
        ("INFO [<command-name> ...]", "Return details about multiple commands."),
        ("DOCS [<command-name> ...]", "Return documentation details about multiple commands."),
        ("GETKEYS <full-command>", "Return the keys from a full command."),
        (
            "GETKEYSANDFLAGS <full-command>",
            "Return the keys and the access flags from a full command.",
        ),
    ];
    help(call, "COMMAND", &lines)
}

// ---- the rest

fn time(call: &mut Call<'_, '_>) -> CommandResult {
    let now = info::unix_micros();
    call.reply.array(2);
    call.reply.display(&(now / 1_000_000));
    call.reply.display(&(now % 1_000_000));
    Ok(())
}

fn memory_usage(call: &mut Call<'_, '_>) -> CommandResult {
    /// Elements that are looked at if nothing else is said, as in Redis.
    const SAMPLES: i64 = 5;
    let samples = match call.args.len() {
        3 => SAMPLES,
        5 if call.args.at(3).eq_ignore_ascii_case(b"SAMPLES") => call.integer(4)?,
        _ => return Err(CommandError::SYNTAX),
    };
    let samples = usize::try_from(samples).map_err(|_| CommandError::SYNTAX)?;
    let (db, key) = (call.session.db, call.args.at(2));
    match call.txn.key_bytes(db, key, samples).on(key)? {
        Some(bytes) => call.reply.count(bytes),
        None => call.reply.null(),
    }
    Ok(())
}

fn memory_help(call: &mut Call<'_, '_>) -> CommandResult {
    let lines =
        [("USAGE <key> [SAMPLES <count>]", "Return memory in bytes used by <key> and its value.")];
    help(call, "MEMORY", &lines)
}

fn debug(call: &mut Call<'_, '_>) -> CommandResult {
    let allowed = match call.world.config.debug_command {
        Debuggers::Nobody => false,
        Debuggers::Local => call.session.local,
        Debuggers::Everybody => true,
    };
    if !allowed {
        return Err(CommandError::Fixed(
            "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you \
             can run it from a local connection, otherwise you need to set this option in the \
             configuration file, and then restart the server.",
        ));
    }
    if call.args.at(1).eq_ignore_ascii_case(b"SLEEP") && call.args.len() == 3 {
        let text = std::str::from_utf8(call.args.at(2)).unwrap_or_default();
        // As in Redis, what is no number is no time.
        let seconds = text.parse::<f64>().unwrap_or(0.0);
        // It stops the whole server, as in Redis: that is what it is for.
        std::thread::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        call.reply.ok();
        return Ok(());
    }
    if call.args.at(1).eq_ignore_ascii_case(b"HELP") && call.args.len() == 2 {
        let lines = [("SLEEP <seconds>", "Stop the server for <seconds>. Decimals allowed.")];
        return help(call, "DEBUG", &lines);
    }
    let mut text = b"ERR unknown subcommand or wrong number of arguments for '".to_vec();
    text.extend_from_slice(call.args.at(1));
    text.extend_from_slice(b"'. Try DEBUG HELP.");
    Err(CommandError::Text(text))
}

fn shutdown(call: &mut Call<'_, '_>) -> CommandResult {
    let (mut save, mut nosave, mut at_once, mut abort) = (false, false, false, false);
    for word in call.args.from(1) {
        match word.to_ascii_lowercase().as_slice() {
            b"save" => save = true,
            b"nosave" => nosave = true,
            b"now" | b"force" => at_once = true,
            b"abort" => abort = true,
            _ => return Err(CommandError::SYNTAX),
        }
    }
    if save && nosave || abort && (save || nosave || at_once) {
        return Err(CommandError::SYNTAX);
    }
    if abort {
        return Err(CommandError::Fixed("ERR No shutdown in progress."));
    }
    // No reply: the client sees the connection close.
    call.world.shutdown = true;
    Ok(())
}

/// The group's records.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "info",
        arity: -1,
        syntax: "[section [section ...]]",
        flags: flag::SEALED | flag::LOADING | flag::STALE,
        group: Group::Server,
        acl: acl::SLOW | acl::DANGEROUS,
        summary: "Get information and statistics about the server",
        since: "1.0.0",
        complexity: "O(1)",
        example: "INFO",
        run: info::info,
        ..Command::BASE
    },
    Command {
        name: "config",
        arity: -2,
        group: Group::Server,
        acl: acl::SLOW,
        summary: "A container for server configuration commands",
        since: "2.0.0",
        complexity: "Depends on subcommand",
        example: "CONFIG get port",
        subcommands: &[
            Command {
                name: "config|get",
                arity: -3,
                syntax: "parameter [parameter ...]",
                flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::ADMIN | acl::SLOW | acl::DANGEROUS,
                summary: "Get the values of configuration parameters",
                since: "2.0.0",
                complexity: "O(N) when N is the number of configuration parameters provided",
                example: "CONFIG GET port",
                run: config_get,
                ..Command::BASE
            },
            Command {
                name: "config|set",
                arity: -4,
                syntax: "parameter value [parameter value ...]",
                flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::ADMIN | acl::SLOW | acl::DANGEROUS,
                summary: "Set configuration parameters to the given values",
                since: "2.0.0",
                complexity: "O(N) when N is the number of configuration parameters provided",
                example: "CONFIG SET appendfsync always",
                run: config_set,
                ..Command::BASE
            },
            Command {
                name: "config|resetstat",
                arity: 2,
                flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::ADMIN | acl::SLOW | acl::DANGEROUS,
                summary: "Reset the counters that INFO shows",
                since: "2.0.0",
                complexity: "O(1)",
                example: "CONFIG RESETSTAT",
                run: config_resetstat,
                ..Command::BASE
            },
            Command {
                name: "config|help",
                arity: 2,
                flags: flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::SLOW,
                summary: "Show helpful text about the different subcommands",
                since: "5.0.0",
                complexity: "O(1)",
                example: "CONFIG HELP",
                run: config_help,
                ..Command::BASE
            },
        ],
        ..Command::BASE
    },
    Command {
        name: "command",
        arity: -1,
        flags: flag::LOADING | flag::STALE,
        group: Group::Server,
        acl: acl::SLOW | acl::CONNECTION,
        summary: "Get details of all commands",
        since: "2.8.13",
        complexity: "O(N) where N is the total number of Redis commands",
        example: "COMMAND",
        run: command,
        subcommands: &[
            Command {
                name: "command|count",
                arity: 2,
                flags: flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Get the number of commands",
                since: "2.8.13",
                complexity: "O(1)",
                example: "COMMAND COUNT",
                run: command_count,
                ..Command::BASE
            },
            Command {
                name: "command|list",
                arity: -2,
                syntax: "[filterby: FILTERBY <MODULE module-name | ACLCAT category | PATTERN \
                         pattern>]",
                flags: flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Get the names of commands",
                since: "7.0.0",
                complexity: "O(N) where N is the total number of Redis commands",
                example: "COMMAND LIST",
                run: command_list,
                ..Command::BASE
            },
            Command {
                name: "command|info",
                arity: -2,
                syntax: "[command-name [command-name ...]]",
                flags: flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Get details of commands",
                since: "2.8.13",
                complexity: "O(N) where N is the number of commands to look up",
                example: "COMMAND INFO get",
                run: command_info,
                ..Command::BASE
            },
            Command {
                name: "command|docs",
                arity: -2,
                syntax: "[command-name [command-name ...]]",
                flags: flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Get the documentation of commands",
                since: "7.0.0",
                complexity: "O(N) where N is the number of commands to look up",
                example: "COMMAND DOCS get",
                run: command_docs,
                ..Command::BASE
            },
            Command {
                name: "command|getkeys",
                arity: -4,
                syntax: "command arg [arg ...]",
                flags: flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Extract the keys of a request",
                since: "2.8.13",
                complexity: "O(N) where N is the number of arguments to the command",
                example: "COMMAND GETKEYS MSET a 1 b 2",
                run: command_getkeys,
                ..Command::BASE
            },
            Command {
                name: "command|getkeysandflags",
                arity: -4,
                syntax: "command arg [arg ...]",
                flags: flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Extract the keys of a request, and what it does with them",
                since: "7.0.0",
                complexity: "O(N) where N is the number of arguments to the command",
                example: "COMMAND GETKEYSANDFLAGS MSET a 1 b 2",
                run: command_getkeysandflags,
                ..Command::BASE
            },
            Command {
                name: "command|help",
                arity: 2,
                flags: flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::SLOW | acl::CONNECTION,
                summary: "Show helpful text about the different subcommands",
                since: "5.0.0",
                complexity: "O(1)",
                example: "COMMAND HELP",
                run: command_help,
                ..Command::BASE
            },
        ],
        ..Command::BASE
    },
    Command {
        name: "time",
        arity: 1,
        flags: flag::LOADING | flag::STALE | flag::FAST,
        group: Group::Server,
        acl: acl::FAST,
        summary: "Return the current server time",
        since: "2.6.0",
        complexity: "O(1)",
        example: "TIME",
        run: time,
        ..Command::BASE
    },
    Command {
        name: "memory",
        arity: -2,
        group: Group::Server,
        acl: acl::SLOW,
        summary: "A container for memory diagnostics commands",
        since: "4.0.0",
        complexity: "Depends on subcommand",
        example: "MEMORY usage greeting",
        subcommands: &[
            Command {
                name: "memory|usage",
                arity: -3,
                syntax: "key [SAMPLES count]",
                flags: flag::READONLY,
                keys: &[KeySpec::at(2).with(access::LOOK)],
                group: Group::Server,
                acl: acl::READ | acl::SLOW,
                summary: "Estimate the memory usage of a key",
                since: "4.0.0",
                complexity: "O(N) where N is the number of samples",
                example: "MEMORY USAGE greeting",
                run: memory_usage,
                ..Command::BASE
            },
            Command {
                name: "memory|help",
                arity: 2,
                flags: flag::LOADING | flag::STALE,
                group: Group::Server,
                acl: acl::SLOW,
                summary: "Show helpful text about the different subcommands",
                since: "4.0.0",
                complexity: "O(1)",
                example: "MEMORY HELP",
                run: memory_help,
                ..Command::BASE
            },
        ],
        ..Command::BASE
    },
    Command {
        name: "debug",
        arity: -2,
        syntax: "subcommand [arg [arg ...]]",
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        group: Group::Server,
        acl: acl::ADMIN | acl::SLOW | acl::DANGEROUS,
        summary: "A container for debugging commands",
        since: "1.0.0",
        complexity: "Depends on subcommand",
        example: "DEBUG sleep 0.1",
        run: debug,
        ..Command::BASE
    },
    Command {
        name: "shutdown",
        arity: -1,
        syntax: "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
        flags: flag::ADMIN
            | flag::NOSCRIPT
            | flag::LOADING
            | flag::STALE
            | flag::NO_MULTI
            | flag::ALLOW_BUSY,
        group: Group::Server,
        acl: acl::ADMIN | acl::SLOW | acl::DANGEROUS,
        summary: "Sync the log and stop the server",
        since: "1.0.0",
        complexity: "O(1)",
        example: "SHUTDOWN",
        run: shutdown,
        ..Command::BASE
    },
];
