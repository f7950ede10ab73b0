//! The command table: a command is a function and a record.
//!
//! Each group of commands is one file that ends with its records. Everything else that is known about
//! commands comes from them: lookup, arity checks, key extraction, what may stand in a transaction,
//! COMMAND and its kin, documentation and ACL categories.

mod clients;
mod connection;
mod crdt;
mod dataflow;
mod error;
mod hashes;
mod info;
mod keys;
mod peers;
mod scan;
mod server;
mod sets;
mod strings;
mod syntax;
mod transactions;

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::FixedState;

use crate::data::Txn;
use crate::net::reply::Reply;
use crate::net::request::{Args, integer};
use crate::session::Session;
use crate::world::World;
pub use error::{CommandError, CommandResult, OnKey, store_refusal};

/// What a command is and may do: bits of [`Command::flags`].
pub mod flag {
    /// Changes data.
    pub const WRITE: u32 = 1;
    /// Reads data and changes none.
    pub const READONLY: u32 = 1 << 1;
    /// May make the data larger.
    pub const DENYOOM: u32 = 1 << 2;
    /// For administrators.
    pub const ADMIN: u32 = 1 << 3;
    /// Cannot be called by scripts.
    pub const NOSCRIPT: u32 = 1 << 4;
    /// Works while data is being loaded.
    pub const LOADING: u32 = 1 << 5;
    /// Works when the data may be stale.
    pub const STALE: u32 = 1 << 6;
    /// Costs O(1) or O(log n).
    pub const FAST: u32 = 1 << 7;
    /// Works before authentication.
    pub const NO_AUTH: u32 = 1 << 8;
    /// Cannot stand in a transaction.
    pub const NO_MULTI: u32 = 1 << 9;
    /// Works while a script is running for too long.
    pub const ALLOW_BUSY: u32 = 1 << 10;
    /// Does not appear in the slow log.
    pub const SKIP_SLOWLOG: u32 = 1 << 11;
    /// About the connection and not the data: works at any time, but not in scripts.
    pub const SESSION: u32 = NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY;
    /// Needs the engine to report changed keys. Ours alone.
    pub const TRACKED: u32 = 1 << 29;
    /// Runs at once inside MULTI instead of being queued. Ours alone, not shown.
    pub const UNQUEUED: u32 = 1 << 30;
    /// Shows facts of the whole engine, so nothing unsealed may have been written before it. Ours alone.
    pub const SEALED: u32 = 1 << 31;

    /// Bits and the names that COMMAND shows, in Redis's order.
    pub const NAMES: [(u32, &str); 12] = [
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (ADMIN, "admin"),
        (NOSCRIPT, "noscript"),
        (LOADING, "loading"),
        (STALE, "stale"),
        (SKIP_SLOWLOG, "skip_slowlog"),
        (FAST, "fast"),
        (NO_AUTH, "no_auth"),
        (NO_MULTI, "no_multi"),
        (ALLOW_BUSY, "allow_busy"),
    ];
}

/// ACL categories: bits of [`Command::acl`].
pub mod acl {
    /// Keys of any type.
    pub const KEYSPACE: u32 = 1;
    /// Reads values.
    pub const READ: u32 = 1 << 1;
    /// Changes values.
    pub const WRITE: u32 = 1 << 2;
    /// Sets.
    pub const SET: u32 = 1 << 3;
    /// Hashes.
    pub const HASH: u32 = 1 << 6;
    /// Strings.
    pub const STRING: u32 = 1 << 7;
    /// Administration.
    pub const ADMIN: u32 = 1 << 13;
    /// O(1) and O(log n).
    pub const FAST: u32 = 1 << 14;
    /// Not fast.
    pub const SLOW: u32 = 1 << 15;
    /// May wait.
    pub const BLOCKING: u32 = 1 << 16;
    /// To be used with care.
    pub const DANGEROUS: u32 = 1 << 17;
    /// The connection itself.
    pub const CONNECTION: u32 = 1 << 18;
    /// Transactions.
    pub const TRANSACTION: u32 = 1 << 19;

    /// Bits and names, in Redis's order.
    pub const NAMES: [(u32, &str); 13] = [
        (KEYSPACE, "keyspace"),
        (READ, "read"),
        (WRITE, "write"),
        (SET, "set"),
        (HASH, "hash"),
        (STRING, "string"),
        (ADMIN, "admin"),
        (FAST, "fast"),
        (SLOW, "slow"),
        (BLOCKING, "blocking"),
        (DANGEROUS, "dangerous"),
        (CONNECTION, "connection"),
        (TRANSACTION, "transaction"),
    ];
}

/// The groups of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Strings and numbers.
    String,
    /// Sets.
    Set,
    /// Hashes.
    Hash,
    /// Keys of any type.
    Generic,
    /// MULTI and its kin.
    Transactions,
    /// The connection.
    Connection,
    /// The server.
    Server,
    /// What CRDTs know beyond Redis's types.
    Crdt,
    /// Bindings.
    Dataflow,
    /// Peers.
    Peers,
}

impl Group {
    /// The name that COMMAND DOCS shows.
    pub fn name(self) -> &'static str {
        match self {
            Group::String => "string",
            Group::Set => "set",
            Group::Hash => "hash",
            Group::Generic => "generic",
            Group::Transactions => "transactions",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Crdt => "crdt",
            Group::Dataflow => "dataflow",
            Group::Peers => "peers",
        }
    }
}

/// What a command does with a key and its value, in Redis's words: [`KeySpec::access`].
pub mod access {
    /// Reads the value.
    pub const READ: &[&str] = &["RO", "access"];
    /// Reads what is known of the value, as its type or length.
    pub const LOOK: &[&str] = &["RO"];
    /// Changes the value.
    pub const UPDATE: &[&str] = &["RW", "update"];
    /// Changes the value and tells of it.
    pub const MODIFY: &[&str] = &["RW", "access", "update"];
    /// The same, as far as the options say so.
    pub const DEPENDS: &[&str] = &["RW", "access", "update", "variable_flags"];
    /// Adds to the value.
    pub const INSERT: &[&str] = &["RW", "insert"];
    /// Removes from the value.
    pub const DELETE: &[&str] = &["RW", "delete"];
    /// Replaces the value, whatever it was.
    pub const REPLACE: &[&str] = &["OW", "update"];
    /// Gives the key its first value.
    pub const CREATE: &[&str] = &["OW", "insert"];
    /// Removes the key.
    pub const REMOVE: &[&str] = &["RM", "delete"];
}

/// A range of arguments that are keys, and what is done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Index of the first key.
    pub first: i16,
    /// Index of the last key; -1 is the last argument.
    pub last: i16,
    /// Distance from one key to the next.
    pub step: i16,
    /// One of [`access`].
    pub access: Access,
}

/// What is done with a key, in Redis's words.
pub type Access = &'static [&'static str];

impl KeySpec {
    /// The first argument.
    pub const ONE: KeySpec = KeySpec::at(1);
    /// All arguments.
    pub const ALL: KeySpec = KeySpec::from(1);
    /// Every other argument.
    pub const PAIRS: KeySpec = KeySpec { step: 2, ..KeySpec::ALL };

    /// One argument.
    pub const fn at(index: i16) -> KeySpec {
        KeySpec { first: index, last: index, step: 1, access: access::READ }
    }

    /// All arguments from one on.
    pub const fn from(first: i16) -> KeySpec {
        KeySpec { first, last: -1, step: 1, access: access::READ }
    }

    /// The same keys, for something else.
    pub const fn with(self, access: Access) -> KeySpec {
        KeySpec { access, ..self }
    }

    /// The keys of a request.
    pub fn keys<'a>(&self, args: Args<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let len = i64::try_from(args.len()).unwrap_or(i64::MAX);
        let last = i64::from(self.last);
        let last = if last < 0 { len + last } else { last.min(len - 1) };
        let step = usize::from(self.step.unsigned_abs().max(1));
        (i64::from(self.first)..last.saturating_add(1))
            .step_by(step)
            .filter_map(move |i| usize::try_from(i).ok().and_then(|i| args.get(i)))
    }
}

/// One command.
#[derive(Debug)]
pub struct Command {
    /// The name in lower case; subcommands as `container|name`.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least that many.
    pub arity: i16,
    /// Its arguments, in the notation of `syntax.rs`.
    pub syntax: &'static str,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Which arguments are keys.
    pub keys: &'static [KeySpec],
    /// Where the documentation has it.
    pub group: Group,
    /// Bits of [`acl`].
    pub acl: u32,
    /// What it does, in a line.
    pub summary: &'static str,
    /// The version of Redis, or of Lattis, that had it first.
    pub since: &'static str,
    /// What it costs.
    pub complexity: &'static str,
    /// A request to try.
    pub example: &'static str,
    /// Runs it.
    pub run: fn(&mut Call<'_, '_>) -> CommandResult,
    /// The commands in this container.
    pub subcommands: &'static [Command],
}

impl Command {
    /// What a record need not say.
    pub const BASE: Command = Command {
        name: "",
        arity: 0,
        syntax: "",
        flags: 0,
        keys: &[],
        group: Group::Server,
        acl: 0,
        summary: "",
        since: "0.1.0",
        complexity: "O(1)",
        example: "",
        run: container,
        subcommands: &[],
    };

    /// Whether all bits of `flag` are set.
    pub fn is(&self, flag: u32) -> bool {
        self.flags & flag == flag
    }

    /// Whether a request may have that many arguments.
    pub fn accepts(&self, len: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { len >= wanted } else { len == wanted }
    }
}

/// The function of a container, which is never called: its subcommands are.
fn container(_: &mut Call<'_, '_>) -> CommandResult {
    Err(CommandError::SYNTAX)
}

/// Everything a command works on.
pub struct Call<'a, 't> {
    /// The request, name included.
    pub args: Args<'a>,
    /// The client's side of the connection.
    pub session: &'a mut Session,
    /// The data, with this command's own writes.
    pub txn: &'a mut Txn<'t>,
    /// Where the reply goes.
    pub reply: Reply<'a>,
    /// The rest of the server.
    pub world: &'a mut World,
}

impl<'a> Call<'a, '_> {
    /// The client's database.
    pub fn db(&self) -> u16 {
        self.session.db
    }

    /// Argument `index` as an integer of 64 bits.
    pub fn integer(&self, index: usize) -> Result<i64, CommandError> {
        integer(self.args.at(index)).ok_or(CommandError::NOT_INTEGER)
    }
}

/// All groups' records.
pub fn all() -> impl Iterator<Item = &'static Command> + Clone {
    const GROUPS: [&[Command]; 11] = [
        strings::COMMANDS,
        sets::COMMANDS,
        hashes::COMMANDS,
        keys::COMMANDS,
        transactions::COMMANDS,
        connection::COMMANDS,
        clients::COMMANDS,
        server::COMMANDS,
        crdt::COMMANDS,
        dataflow::COMMANDS,
        peers::COMMANDS,
    ];
    GROUPS.into_iter().flatten()
}

/// Longest name of a command.
const MAX_NAME: usize = 32;

/// All commands and, by their full names, subcommands.
static BY_NAME: LazyLock<HashMap<&'static [u8], &'static Command, FixedState>> =
    LazyLock::new(|| {
        let mut table = HashMap::with_hasher(FixedState::default());
        for command in all() {
            table.insert(command.name.as_bytes(), command);
            for subcommand in command.subcommands {
                table.insert(subcommand.name.as_bytes(), subcommand);
            }
        }
        table
    });

/// The command of that name, in any case; subcommands as `container|name`. Does not allocate.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    let mut lower = [0; MAX_NAME];
    let lower = lower.get_mut(..name.len())?;
    for (to, from) in lower.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    BY_NAME.get(&*lower).copied()
}

/// The subcommand of a container.
pub fn find_in(container: &'static Command, name: &[u8]) -> Option<&'static Command> {
    container.subcommands.iter().find(|command| {
        command
            .name
            .rsplit('|')
            .next()
            .is_some_and(|short| short.as_bytes().eq_ignore_ascii_case(name))
    })
}

/// Finds the command of a request and checks its number of arguments.
pub fn resolve(args: Args<'_>) -> Result<&'static Command, CommandError> {
    let name = args.at(0);
    let Some(command) = find(name).filter(|_| !name.contains(&b'|')) else {
        return Err(error::unknown_command(args));
    };
    let command = if command.subcommands.is_empty() || args.len() < 2 {
        command
    } else {
        find_in(command, args.at(1)).ok_or_else(|| error::unknown_subcommand(args))?
    };
    if !command.accepts(args.len()) || (args.len() < 2 && is_bare_container(command)) {
        return Err(CommandError::arity(command.name));
    }
    Ok(command)
}

/// Containers do nothing on their own, except COMMAND.
fn is_bare_container(command: &Command) -> bool {
    !command.subcommands.is_empty() && command.arity != -1
}

/// The text of a container's HELP: lines of (usage, explanation).
fn help(call: &mut Call<'_, '_>, name: &str, lines: &[(&str, &str)]) -> CommandResult {
    call.reply.array(lines.len() * 2 + 3);
    call.reply.simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for (usage, explanation) in lines {
        call.reply.simple(usage);
        call.reply.simple(&format!("    {explanation}"));
    }
    call.reply.simple("HELP");
    call.reply.simple("    Prints this help.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Vec<&'static Command> {
        all().flat_map(|c| std::iter::once(c).chain(c.subcommands)).collect()
    }

    #[test]
    fn records_are_complete() {
        let mut names = std::collections::BTreeSet::new();
        for command in everything() {
            let name = command.name;
            assert!(names.insert(name), "{name} twice");
            assert!(name.len() <= MAX_NAME, "{name} too long");
            assert_eq!(name, name.to_lowercase());
            assert!(!command.summary.is_empty(), "{name}: summary");
            assert!(!command.since.is_empty(), "{name}: since");
            assert!(!command.complexity.is_empty(), "{name}: complexity");
            assert!(!command.example.is_empty(), "{name}: example");
            assert_ne!(command.arity, 0, "{name}: arity");
            assert!(!command.is(flag::WRITE) || !command.is(flag::READONLY), "{name}");
            let speed = command.acl & (acl::FAST | acl::SLOW);
            assert_eq!(speed == acl::FAST, command.is(flag::FAST), "{name}: speed");
            assert!(speed == acl::FAST || speed == acl::SLOW, "{name}: speed");
            if !matches!(command.group, Group::Dataflow) {
                assert_eq!(command.is(flag::WRITE), command.acl & acl::WRITE != 0, "{name}");
            }
        }
    }

    #[test]
    fn examples_are_requests_of_their_command() {
        for command in everything() {
            let words: Vec<&str> = command.example.split(' ').collect();
            let bytes = command.example.as_bytes();
            let mut spans = Vec::new();
            let mut at = 0;
            for word in &words {
                spans.push(at..at + word.len());
                at += word.len() + 1;
            }
            let found = resolve(Args::new(bytes, &spans));
            if command.subcommands.is_empty() {
                assert_eq!(found.map(|c| c.name).ok(), Some(command.name), "{}", command.example);
            }
        }
    }

    #[test]
    fn arity_leaves_room_for_keys() {
        for command in everything() {
            for keys in command.keys {
                assert!(keys.first > 0 && keys.step > 0, "{}", command.name);
                let least = command.arity.abs();
                assert!(keys.first < least, "{}: first key", command.name);
                assert!(keys.last < 0 || keys.last < least, "{}: last key", command.name);
            }
        }
    }

    /// The syntax of a command and its arity tell the same.
    #[test]
    fn syntax_fits_arity() {
        for command in everything().into_iter().filter(|it| it.subcommands.is_empty()) {
            let name = command.name;
            let arguments = syntax::parse(command.syntax)
                .unwrap_or_else(|why| panic!("{name}: {}: {why}", command.syntax));
            let words = name.split('|').count();
            let (least, most) = syntax::count(&arguments);
            assert_eq!(usize::from(command.arity.unsigned_abs()), least + words, "{name}");
            // QUIT is obeyed whatever stands behind it.
            assert_eq!(command.arity > 0, most == Some(least) && name != "quit", "{name}");
            let keys = |it: &syntax::Argument| it.kind == syntax::Kind::Key;
            let mut open: Vec<&syntax::Argument> = arguments.iter().collect();
            let mut found = false;
            while let Some(argument) = open.pop() {
                found |= keys(argument);
                open.extend(&argument.parts);
            }
            assert_eq!(found, !command.keys.is_empty(), "{name}: keys");
        }
    }

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(find(b"gEt").map(|c| c.name), Some("get"));
        assert_eq!(find(b"SADD.crdt").map(|c| c.name), Some("sadd.crdt"));
        assert_eq!(find(b"client|ID").map(|c| c.name), Some("client|id"));
        assert!(find(b"").is_none());
        assert!(find(&[b'x'; 100]).is_none());
    }

    #[test]
    fn keys_are_extracted() {
        let text = b"MSET a 1 b 2";
        let spans = [0..4, 5..6, 7..8, 9..10, 11..12];
        let args = Args::new(text, &spans);
        let keys: Vec<&[u8]> = KeySpec::PAIRS.keys(args).collect();
        assert_eq!(keys, [b"a", b"b"]);
        assert_eq!(KeySpec::ALL.keys(args).count(), 4);
        assert_eq!(KeySpec::ONE.keys(args).count(), 1);
        assert_eq!(KeySpec::from(3).keys(args).collect::<Vec<_>>(), [b"b", b"2"]);
        assert_eq!(KeySpec::at(9).keys(args).count(), 0);
    }
}
