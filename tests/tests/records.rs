//! What COMMAND tells of a command is what a real Redis tells of it.
//!
//! Clients route by key positions and cut by flags, and redis-cli makes its hints and its help of the
//! documentation. Where a record differs from Redis's on purpose stands in a list here, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use lattis_tests::process::{NodeConfig, Server};
use lattis_tests::resp::{Client, Value};

/// The fields of COMMAND INFO that are compared, by place.
const FIELDS: [(usize, &str); 7] = [
    (1, "arity"),
    (2, "flags"),
    (3, "first key"),
    (4, "last key"),
    (5, "step"),
    (6, "ACL categories"),
    (8, "key specifications"),
];

/// Command, field, and why it is not as in Redis.
const DIFFERENT: &[(&str, &str, &str)] = &[];

/// Commands whose arguments are documented otherwise than in Redis, and why.
const DOCUMENTED_DIFFERENTLY: &[(&str, &str)] = &[
    ("client|kill", "one filter, and then more options with their values"),
    ("config|get", "Redis makes a block of one argument"),
    ("command|getkeys", "Redis 7.0 says nothing of its arguments"),
    ("command|getkeysandflags", "Redis 7.0 says nothing of its arguments"),
    ("debug", "Redis says nothing of its subcommands"),
];

fn speaking_resp3(server: &Server) -> Client {
    let mut client = server.client();
    assert!(client.words("HELLO 3").error().is_none());
    client
}

/// Sets without an order, and no notes for people.
fn plain(value: &Value) -> String {
    match value {
        Value::Set(items) | Value::Array(items) => {
            let texts: BTreeSet<String> = items.iter().map(plain).collect();
            format!("{texts:?}")
        }
        Value::Map(pairs) => {
            let fields = pairs.iter().map(|(name, value)| (plain(name), plain(value)));
            let fields: BTreeMap<_, _> = fields.filter(|(name, _)| name != "notes").collect();
            format!("{fields:?}")
        }
        other => other.text().unwrap_or_else(|| format!("{other:?}")),
    }
}

/// Commands and subcommands by name, as COMMAND shows them.
fn commands(server: &Server) -> BTreeMap<String, Vec<Value>> {
    let mut found = BTreeMap::new();
    let mut open = vec![speaking_resp3(server).words("COMMAND")];
    while let Some(list) = open.pop() {
        for command in list.items().expect("commands") {
            let fields = command.items().expect("a command");
            let name = fields[0].text().expect("a name");
            found.insert(name, fields.to_vec());
            open.extend(fields.get(9).cloned());
        }
    }
    found
}

#[test]
fn what_command_info_tells_is_what_redis_tells() {
    let ours = commands(&Server::lattis(&NodeConfig::new("records")));
    let theirs = commands(&Server::redis(&[]));
    let mut shared = 0;
    let mut wrong = Vec::new();
    for (name, fields) in &ours {
        let Some(reference) = theirs.get(name) else { continue };
        shared += 1;
        for (place, field) in FIELDS {
            let (left, right) = (plain(&fields[place]), plain(&reference[place]));
            let listed = DIFFERENT.iter().any(|(n, f, _)| (*n, *f) == (name.as_str(), field));
            if (left == right) == listed {
                wrong.push(format!("{name}: {field}: {left}, in Redis {right}"));
            }
        }
    }
    assert!(shared > 80, "{shared} commands that both have");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The arguments of a command as COMMAND DOCS has them, without the versions they came with.
fn arguments(docs: &Value) -> String {
    fn show(argument: &Value) -> String {
        let Value::Map(fields) = argument else { panic!("an argument: {argument:?}") };
        let texts = fields.iter().filter_map(|(name, value)| {
            let text = match name.text()?.as_str() {
                "since" | "summary" => return None,
                "arguments" => list(value),
                _ => plain(value),
            };
            Some(format!("{}={text}", name.text()?))
        });
        let texts: BTreeSet<String> = texts.collect();
        format!("{texts:?}").replace(['"', '\\'], "")
    }
    fn list(arguments: &Value) -> String {
        let items = arguments.items().expect("arguments").iter();
        format!("[{}]", items.map(show).collect::<Vec<_>>().join(", "))
    }
    field(docs, "arguments").map_or_else(|| "none".into(), list)
}

fn field<'v>(map: &'v Value, name: &str) -> Option<&'v Value> {
    let Value::Map(pairs) = map else { return None };
    pairs.iter().find(|(key, _)| key.text().as_deref() == Some(name)).map(|(_, value)| value)
}

/// The documentation of commands and subcommands, by name.
fn documentation(server: &Server) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut open = vec![speaking_resp3(server).words("COMMAND DOCS")];
    while let Some(all) = open.pop() {
        let Value::Map(commands) = all else { panic!("documentation: {all:?}") };
        for (name, docs) in commands {
            open.extend(field(&docs, "subcommands").cloned());
            found.insert(name.text().expect("a name"), docs);
        }
    }
    found
}

/// Names, kinds, tokens and flags of all arguments: what hints and help are made of.
#[test]
fn what_command_docs_tells_of_arguments_is_what_redis_tells() {
    let ours = documentation(&Server::lattis(&NodeConfig::new("documented")));
    let theirs = documentation(&Server::redis(&[]));
    let mut wrong = Vec::new();
    let mut shared = 0;
    for (name, docs) in &ours {
        let Some(reference) = theirs.get(name) else { continue };
        shared += 1;
        let (left, right) = (arguments(docs), arguments(reference));
        let listed = DOCUMENTED_DIFFERENTLY.iter().any(|(n, _)| n == name);
        if (left == right) == listed {
            wrong.push(format!("{name}: {left}\n  in Redis {right}"));
        }
        assert_eq!(field(docs, "group"), field(reference, "group"), "{name}");
    }
    assert!(shared > 80, "{shared} commands that both have");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for name in ["map.bind", "sadd.crdt", "peer.meet", "incr.crdt"] {
        assert_ne!(arguments(&ours[name]), "none", "{name}");
    }
}

/// A binding writes its target and only reads its sources; access control and tools go by that.
#[test]
fn bindings_tell_which_key_is_written() {
    let server = Server::lattis(&NodeConfig::new("bindings"));
    let mut client = speaking_resp3(&server);
    let wanted = |keys: &[(&str, &[&str])]| -> Vec<(String, Vec<String>)> {
        let texts = |flags: &[&str]| flags.iter().map(|flag| flag.to_string()).collect();
        keys.iter().map(|(key, flags)| (key.to_string(), texts(flags))).collect()
    };
    let (written, read) = (&["OW", "update"], &["RO", "access"]);
    for (request, keys) in [
        ("MAP.BIND t s x", wanted(&[("t", written), ("s", read)])),
        ("FILTER.BIND t s x>1", wanted(&[("t", written), ("s", read)])),
        ("UNION.BIND t a b c", wanted(&[("t", written), ("a", read), ("b", read), ("c", read)])),
        ("BIND.DEL t", wanted(&[("t", &["RM", "delete"])])),
    ] {
        let reply = client.words(&format!("COMMAND GETKEYSANDFLAGS {request}"));
        let pair = |item: &Value| {
            let pair = item.items().expect("a key and its flags");
            let flags: Vec<String> = pair[1].items()?.iter().filter_map(Value::text).collect();
            Some((pair[0].text()?, flags))
        };
        let found: Option<Vec<_>> = reply.items().expect("keys").iter().map(pair).collect();
        assert_eq!(found, Some(keys), "{request}");
    }
    let info = client.words("COMMAND INFO union.bind");
    let fields = info.items().and_then(|list| list[0].items()).expect("one command");
    let range: Vec<Option<i64>> = fields[3..6].iter().map(Value::int).collect();
    assert_eq!(range, [Some(1), Some(-1), Some(1)], "what older clients go by");
}

/// An expression that is not text is refused and defines nothing; BIND.LIST shows what a pattern asks for.
#[test]
fn bindings_are_listed_and_expressions_are_text() {
    let server = Server::lattis(&NodeConfig::new("bindings"));
    let mut client = server.client();
    let request: [&[u8]; 4] = [b"MAP.BIND", b"t", b"s", b"\"\xff\xfe\""];
    let reply = client.call(&request);
    assert_eq!(reply.error(), Some("ERR the expression is not valid UTF-8"));
    assert_eq!(client.words("BIND.LIST"), Value::Array(Vec::new()));
    for target in ["user:1", "user:2", "other"] {
        assert!(client.call(&["MAP.BIND", target, "a", "x"]).is_ok());
    }
    let mut targets = |line: &str| -> Vec<String> {
        let reply = client.words(line);
        let rows = reply.items().expect("bindings").iter();
        rows.filter_map(|row| row.items()?[0].text()).collect()
    };
    assert_eq!(targets("BIND.LIST"), ["other", "user:1", "user:2"]);
    assert_eq!(targets("BIND.LIST user:*"), ["user:1", "user:2"]);
    assert!(targets("BIND.LIST nothing").is_empty());
    let reply = client.words("BIND.LIST a b");
    assert_eq!(reply.error(), Some("ERR wrong number of arguments for 'bind.list' command"));
}

/// Every container explains itself, and leaves out none of its subcommands.
#[test]
fn every_container_has_help() {
    let server = Server::lattis(&NodeConfig::new("helpful"));
    let all = commands(&server);
    let mut client = server.client();
    let mut containers = 0;
    for (name, fields) in &all {
        let subcommands = fields[9].items().unwrap_or_default();
        if subcommands.is_empty() {
            continue;
        }
        containers += 1;
        let reply = client.words(&format!("{name} HELP"));
        let lines: Vec<String> =
            reply.items().expect("lines").iter().filter_map(Value::text).collect();
        for subcommand in subcommands {
            let full = subcommand.items().and_then(|fields| fields[0].text()).expect("a name");
            let short = full.split('|').nth(1).expect("a subcommand").to_uppercase();
            let told = lines.iter().any(|line| line.split(' ').next() == Some(&*short));
            assert!(told, "{name} HELP says nothing of {short}");
        }
    }
    assert!(containers >= 4, "{containers} containers");
}

/// SHUTDOWN with what is no way to shut down is refused as in Redis, and nobody stops.
#[test]
fn shutdown_is_refused_as_in_redis() {
    let (lattis, redis) = (Server::lattis(&NodeConfig::new("going")), Server::redis(&[]));
    let [mut ours, mut theirs] = [&lattis, &redis].map(Server::client);
    for words in
        ["SAVE NOSAVE", "ABORT", "NOW ABORT", "ABORT SAVE", "FORCE ABORT", "SOON", "ABORT ABORT"]
    {
        let line = format!("SHUTDOWN {words}");
        let reply = ours.words(&line);
        assert!(reply.error().is_some(), "{line}: {reply:?}");
        assert_eq!(reply, theirs.words(&line), "{line}");
    }
    assert!(ours.words("PING").error().is_none());
}
