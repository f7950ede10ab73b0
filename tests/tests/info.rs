//! INFO tells what has happened: fields move as a real Redis's do, and none is made up.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use lattis_tests::process::{NodeConfig, PATIENCE, Server};
use lattis_tests::resp::Client;

/// The fields of INFO by name.
fn info(client: &mut Client) -> BTreeMap<String, String> {
    let text = client.words("INFO everything").text().expect("INFO");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn number(fields: &BTreeMap<String, String>, name: &str) -> i64 {
    let value = fields.get(name).unwrap_or_else(|| panic!("INFO has no {name}"));
    value.parse().unwrap_or_else(|_| panic!("{name}:{value}"))
}

/// What kind of value a field has: programs parse it by that.
fn shape(value: &str) -> &'static str {
    let unit = value.strip_suffix(['B', 'K', 'M', 'G', '%']).unwrap_or(value);
    if value.parse::<i64>().is_ok() {
        "integer"
    } else if value.parse::<f64>().is_ok() {
        "decimal"
    } else if unit.parse::<f64>().is_ok() {
        "size"
    } else if value.contains('=') {
        "pairs"
    } else {
        "text"
    }
}

/// What both have is of one kind, and what Redis does not have is named as ours.
#[test]
fn fields_are_redis_s_or_ours() {
    let (lattis, redis) = (Server::lattis(&NodeConfig::new("named")), Server::redis(&[]));
    let [ours, theirs] = [&lattis, &redis].map(|server| {
        let mut client = server.client();
        assert!(client.words("SET k v").is_ok());
        client.words("NOSUCH");
        info(&mut client)
    });
    let own = ["node_name", "node_id", "incarnation", "digest"];
    // Redis 7.2 counts them under these names.
    let newer = "_buffer_limit_disconnections";
    let mut shared = 0;
    for (name, value) in &ours {
        let ours_alone = name.starts_with("lattis_")
            || name.starts_with("bindings")
            || own.contains(&&name[..])
            || name.ends_with(newer);
        match theirs.get(name) {
            Some(reference) => {
                shared += 1;
                assert_eq!(shape(value), shape(reference), "{name}: {value} and {reference}");
            }
            None => assert!(ours_alone, "{name}:{value} is not in Redis"),
        }
    }
    assert!(shared > 50, "{shared} fields that both have");
    // What programs take for granted.
    for name in [
        "redis_version",
        "redis_mode",
        "run_id",
        "role",
        "loading",
        "connected_slaves",
        "maxmemory_policy",
        "used_memory",
        "used_memory_human",
        "used_memory_peak_human",
        "uptime_in_days",
        "connected_clients",
        "cluster_enabled",
    ] {
        assert!(ours.contains_key(name), "{name}");
    }
}

/// What was done, and by how much which fields move then.
const COUNTED: &[(&str, &[(&str, i64)])] = &[
    ("PING", &[("total_commands_processed", 1), ("keyspace_hits", 0), ("keyspace_misses", 0)]),
    ("GET string", &[("keyspace_hits", 1), ("keyspace_misses", 0)]),
    ("GET nothing", &[("keyspace_hits", 0), ("keyspace_misses", 1)]),
    ("MGET string nothing", &[("keyspace_hits", 1), ("keyspace_misses", 1)]),
    ("EXISTS string nothing nothing", &[("keyspace_hits", 1), ("keyspace_misses", 2)]),
    ("STRLEN string", &[("keyspace_hits", 1)]),
    ("TYPE string", &[("keyspace_hits", 1)]),
    ("TTL string", &[("keyspace_hits", 1)]),
    ("PTTL nothing", &[("keyspace_misses", 1)]),
    ("SMEMBERS set", &[("keyspace_hits", 1)]),
    ("SISMEMBER set a", &[("keyspace_hits", 1)]),
    ("SMISMEMBER nothing a b", &[("keyspace_misses", 1)]),
    ("SCARD nothing", &[("keyspace_misses", 1)]),
    ("SINTER set set", &[("keyspace_hits", 2)]),
    ("SUNION set nothing", &[("keyspace_hits", 1), ("keyspace_misses", 1)]),
    ("SDIFF set set", &[("keyspace_hits", 2)]),
    ("HGET hash f", &[("keyspace_hits", 1)]),
    ("HGET hash nothing", &[("keyspace_hits", 1)]),
    ("HMGET nothing f", &[("keyspace_misses", 1)]),
    ("HGETALL hash", &[("keyspace_hits", 1)]),
    ("HKEYS hash", &[("keyspace_hits", 1)]),
    ("HVALS nothing", &[("keyspace_misses", 1)]),
    ("HLEN hash", &[("keyspace_hits", 1)]),
    ("HEXISTS hash f", &[("keyspace_hits", 1)]),
    ("SET other v", &[("keyspace_hits", 0), ("keyspace_misses", 0)]),
    ("INCR n", &[("keyspace_hits", 0), ("keyspace_misses", 0)]),
    ("DEL other", &[("keyspace_hits", 0), ("keyspace_misses", 0)]),
    ("INCR string", &[("total_error_replies", 1), ("total_commands_processed", 1)]),
    ("NOSUCH", &[("total_error_replies", 1)]),
    ("GET", &[("total_error_replies", 1)]),
    ("GET set", &[("total_error_replies", 1), ("keyspace_hits", 1)]),
    ("MGET set", &[("total_error_replies", 0), ("keyspace_hits", 1)]),
];

/// Redis moves by as much as the table says, and so do we.
#[test]
fn counters_count() {
    for server in [Server::redis(&[]), Server::lattis(&NodeConfig::new("counts"))] {
        let mut client = server.client();
        for line in ["SET string v", "SADD set a", "HSET hash f v"] {
            assert!(client.words(line).error().is_none());
        }
        let mut wrong = Vec::new();
        let mut before = info(&mut client);
        for (line, moved) in COUNTED {
            client.words(line);
            let after = info(&mut client);
            for (name, by) in *moved {
                // The INFO before was counted after it was shown.
                let own = i64::from(*name == "total_commands_processed");
                let found = number(&after, name) - number(&before, name) - own;
                if found != *by {
                    wrong.push(format!("{line}: {name} moved by {found}, not by {by}"));
                }
            }
            before = after;
        }
        assert!(wrong.is_empty(), "{}:\n{}", server.name(), wrong.join("\n"));
        assert_eq!(before["errorstat_ERR"], "count=3", "{}", server.name());
        assert_eq!(before["errorstat_WRONGTYPE"], "count=1", "{}", server.name());
        // Within a transaction each command counts, and each error.
        for line in ["MULTI", "SET string v", "INCR string", "EXEC"] {
            client.words(line);
        }
        let after = info(&mut client);
        let moved = |name| number(&after, name) - number(&before, name);
        assert_eq!(moved("total_error_replies"), 1, "{}", server.name());
        assert!(client.words("CONFIG RESETSTAT").is_ok());
        let reset = info(&mut client);
        assert_eq!(number(&reset, "total_error_replies"), 0, "{}", server.name());
        assert!(!reset.contains_key("errorstat_ERR"), "{}", server.name());
    }
}

/// Keys that expire are counted once each, whether somebody looks or not.
#[test]
fn expired_keys_are_counted() {
    for server in [Server::redis(&[]), Server::lattis(&NodeConfig::new("expired"))] {
        let mut client = server.client();
        for number in 0..20 {
            assert!(client.call(&["SET", &format!("k{number}"), "v", "PX", "150"]).is_ok());
        }
        let start = Instant::now();
        while number(&info(&mut client), "expired_keys") < 20 {
            client.words("GET k1");
            assert!(start.elapsed() < PATIENCE, "{}", server.name());
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(client.words("DBSIZE").int(), Some(0));
        assert_eq!(number(&info(&mut client), "expired_keys"), 20, "{}", server.name());
        assert!(client.words("CONFIG RESETSTAT").is_ok());
        assert_eq!(number(&info(&mut client), "expired_keys"), 0, "{}", server.name());
    }
}

/// Lines for the keyspace: keys and deadlines, and the seconds that are left on average in databases 0 and 3.
const EXPIRING: &[(&[&str], [i64; 2])] = &[
    (
        &["SET a 1 EX 100", "SET b 1", "SADD s 1", "SELECT 3", "HSET h f v", "EXPIRE h 1000"],
        [100, 1000],
    ),
    (&["SELECT 0", "EXPIRE s 300", "PERSIST a", "SET b 2 EX 500", "SET b 3"], [300, 1000]),
    (&["DEL s", "SET c 1 EX 700", "SET c 2 KEEPTTL", "INCR c", "EXPIRE a 500"], [600, 1000]),
    (&["EXPIRE nothing 9", "DEL a c"], [0, 1000]),
    (&["FLUSHDB"], [1000, 1000]),
];

/// Keys and those with a deadline, as Redis tells them; how far these are, exactly. (Redis looks at a few
/// keys now and then, and takes long to know.)
#[test]
fn keyspace_tells_what_expires() {
    let (mut lattis, redis) = (Server::lattis(&NodeConfig::new("keyspace")), Server::redis(&[]));
    let keyspace = |client: &mut Client| -> Vec<(String, i64)> {
        let text = client.words("INFO keyspace").text().expect("INFO");
        let line = |line: &str| {
            let (counts, left) = line.split_once(",avg_ttl=")?;
            Some((counts.to_string(), left.parse().expect("a number")))
        };
        text.lines().filter_map(line).collect()
    };
    let counts = |lines: &[(String, i64)]| -> Vec<String> {
        lines.iter().map(|(counts, _)| counts.clone()).collect()
    };
    let [mut ours, mut theirs] = [&lattis, &redis].map(Server::client);
    for (lines, seconds) in EXPIRING {
        for line in *lines {
            assert_eq!(ours.words(line), theirs.words(line), "{line}");
        }
        let told = keyspace(&mut ours);
        assert_eq!(counts(&told), counts(&keyspace(&mut theirs)), "{lines:?}");
        for ((counts, left), wanted) in told.iter().zip(seconds) {
            assert!((left / 1000 - wanted).abs() <= 5, "{lines:?}: {counts}: {left} ms are left");
        }
    }
    let before = counts(&keyspace(&mut ours));
    drop(ours);
    lattis.kill();
    lattis.restart();
    assert_eq!(counts(&keyspace(&mut lattis.client())), before);
}

/// Rates rise with load and fall without.
#[test]
fn rates_follow_the_load() {
    let server = Server::lattis(&NodeConfig::new("rates"));
    let mut client = server.client();
    let start = Instant::now();
    loop {
        for _ in 0..100 {
            client.words("PING");
        }
        let fields = info(&mut client);
        let input: f64 = fields["instantaneous_input_kbps"].parse().expect("a number");
        let output: f64 = fields["instantaneous_output_kbps"].parse().expect("a number");
        if number(&fields, "instantaneous_ops_per_sec") > 50 && input > 0.0 && output > 0.0 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{fields:?}");
    }
    while number(&info(&mut client), "instantaneous_ops_per_sec") > 20 {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(200));
    }
}

/// The parts of the memory are told, and follow what is in them.
#[test]
fn memory_is_told_by_its_parts() {
    const BYTES: i64 = 8 << 20;
    let server = Server::lattis(&NodeConfig::new("parts"));
    let (mut client, mut other) = (server.client(), server.client());
    let before = info(&mut client);
    let value = "x".repeat(BYTES as usize);
    let moved = |fields: &BTreeMap<String, String>, name: &str| {
        number(fields, name) - number(&before, name)
    };
    // A transaction that is being queued is a client's.
    assert!(other.words("MULTI").is_ok());
    other.call(&["SET", "k", &value]);
    let queued = info(&mut client);
    assert!(moved(&queued, "mem_clients_normal") >= BYTES, "{queued:?}");
    assert!(moved(&queued, "lattis_mem_rows") < BYTES / 4, "{queued:?}");
    other.words("EXEC");
    let fields = info(&mut client);
    assert!(moved(&fields, "lattis_mem_rows") >= BYTES, "{fields:?}");
    assert!(moved(&fields, "lattis_log_bytes") >= BYTES, "{fields:?}");
    assert!(moved(&fields, "used_memory") >= BYTES, "{fields:?}");
    assert!(moved(&fields, "mem_clients_normal") < BYTES / 4, "{fields:?}");
    assert!(number(&fields, "used_memory_peak") >= number(&fields, "used_memory"));
    assert!(number(&fields, "used_memory_rss") >= BYTES);
    assert!(number(&fields, "lattis_disk_bytes") >= BYTES);
    let parts = [
        "used_memory_startup",
        "mem_clients_normal",
        "lattis_mem_rows",
        "lattis_mem_lists",
        "lattis_mem_log_index",
        "lattis_mem_memtables",
        "lattis_mem_blocks",
        "lattis_mem_tables",
        "lattis_mem_outbox",
    ];
    let sum: i64 = parts.iter().map(|name| number(&fields, name)).sum();
    assert_eq!(sum, number(&fields, "used_memory"));
    // Pinned rows are let go when the store has them.
    let start = Instant::now();
    while number(&info(&mut client), "lattis_mem_pinned") > 0 {
        assert!(start.elapsed() < PATIENCE, "{:?}", info(&mut client));
        thread::sleep(Duration::from_millis(50));
    }
}

/// Elements that a binding leaves out can be seen without listing the bindings.
#[test]
fn failed_evaluations_are_counted() {
    let server = Server::lattis(&NodeConfig::new("failed"));
    let mut client = server.client();
    client.words("SADD q 1.5 abc 7");
    assert!(client.call(&["MAP.BIND", "qq", "q", "x + \"!\""]).is_ok());
    let fields = info(&mut client);
    assert_eq!(
        (number(&fields, "bindings"), number(&fields, "bindings_failed_evaluations")),
        (1, 2)
    );
}

/// MEMORY USAGE of all keys together is what the rows in memory take, whatever their types.
#[test]
fn memory_usage_adds_up_to_the_rows() {
    let server = Server::lattis(&NodeConfig::new("usage"));
    let mut client = server.client();
    let rows = |client: &mut Client| number(&info(client), "lattis_mem_rows");
    let usage = |client: &mut Client, key: &str| {
        client.words(&format!("MEMORY USAGE {key}")).int().unwrap_or_else(|| panic!("{key}"))
    };
    assert!(client.words("MEMORY USAGE nothing").int().is_none());
    let long = "m".repeat(100);
    for (kind, elements) in
        [("string", 1), ("counter", 1), ("set", 500), ("hash", 500), ("view", 0)]
    {
        let before = rows(&mut client);
        let keys: Vec<String> = (0..20).map(|number| format!("{kind}:{number}")).collect();
        for key in &keys {
            for element in 0..elements {
                let (member, value) = (format!("{long}{element}"), "v".repeat(50));
                let reply = match kind {
                    "string" => client.call(&["SET", key, &long]),
                    "counter" => client.call(&["INCR", key]),
                    "set" => client.call(&["SADD", key, &member]),
                    _ => client.call(&["HSET", key, &member, &value]),
                };
                assert!(reply.error().is_none(), "{reply:?}");
            }
            if kind == "view" {
                assert!(client.call(&["MAP.BIND", key, "set:0", "x + \"!\""]).is_ok());
            }
        }
        // Sizes of rows that were changed are reckoned again when they are written.
        let start = Instant::now();
        while number(&info(&mut client), "lattis_mem_pinned") > 0 {
            assert!(start.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(50));
        }
        let real = rows(&mut client) - before;
        let told: i64 = keys.iter().map(|key| usage(&mut client, key)).sum();
        let off = (told - real).abs() as f64 / real as f64;
        assert!(off < 0.2, "{kind}: {told} bytes are told, {real} are held");
        let all = client.words(&format!("MEMORY USAGE {} SAMPLES 0", keys[0])).int();
        let off = (all.expect("bytes") - usage(&mut client, &keys[0])).abs();
        assert!(off < 1_000, "{kind}: {off}");
    }
}

/// A counter that many nodes or lives of one have added to is larger than one that is new.
#[test]
fn memory_usage_follows_increments() {
    let mut server = Server::lattis(&NodeConfig::new("origins"));
    let fresh = |client: &mut Client| {
        client.words("INCR new");
        client.words("MEMORY USAGE new").int().expect("bytes")
    };
    let mut last = 0;
    for round in 0..12 {
        let mut client = server.client();
        client.words("INCR old");
        last = client.words("MEMORY USAGE old").int().expect("bytes");
        if round == 0 {
            assert_eq!(last, fresh(&mut client));
        }
        drop(client);
        server.kill();
        server.restart();
    }
    let mut client = server.client();
    client.words("DEL new");
    let new = fresh(&mut client);
    assert!(last > new + 11 * 15, "{last} bytes after 12 lives, {new} after one");
}
