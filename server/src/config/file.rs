//! The form of redis.conf: words of a line, and the directives of Redis that are known and not ours.

use crate::net::request::split_line;

/// What a file for Redis may say without a meaning here: there is nothing to be tuned by it.
const PASSED_OVER: &[&str] = &[
    "acllog-max-len",
    "active-defrag-cycle-max",
    "active-defrag-cycle-min",
    "active-defrag-ignore-bytes",
    "active-defrag-max-scan-fields",
    "active-defrag-threshold-lower",
    "active-defrag-threshold-upper",
    "active-expire-effort",
    "activedefrag",
    "activerehashing",
    "always-show-logo",
    "aof-load-truncated",
    "aof-rewrite-incremental-fsync",
    "aof-timestamp-enabled",
    "aof-use-rdb-preamble",
    "appenddirname",
    "appendfilename",
    "appendonly",
    "auto-aof-rewrite-min-size",
    "auto-aof-rewrite-percentage",
    "busy-reply-threshold",
    "crash-log-enabled",
    "crash-memcheck-enabled",
    "dbfilename",
    "disable-thp",
    "dynamic-hz",
    "hash-max-listpack-entries",
    "hash-max-listpack-value",
    "hash-max-ziplist-entries",
    "hash-max-ziplist-value",
    "hll-sparse-max-bytes",
    "hz",
    "io-threads",
    "io-threads-do-reads",
    "jemalloc-bg-thread",
    "latency-monitor-threshold",
    "latency-tracking",
    "lazyfree-lazy-eviction",
    "lazyfree-lazy-expire",
    "lazyfree-lazy-server-del",
    "lazyfree-lazy-user-del",
    "lazyfree-lazy-user-flush",
    "lfu-decay-time",
    "lfu-log-factor",
    "list-compress-depth",
    "list-max-listpack-size",
    "list-max-ziplist-size",
    "lua-time-limit",
    "maxmemory-eviction-tenacity",
    "maxmemory-samples",
    "min-replicas-max-lag",
    "min-replicas-to-write",
    "no-appendfsync-on-rewrite",
    "oom-score-adj",
    "oom-score-adj-values",
    "proc-title-template",
    "rdb-del-sync-files",
    "rdb-save-incremental-fsync",
    "rdbchecksum",
    "rdbcompression",
    "repl-backlog-size",
    "repl-backlog-ttl",
    "repl-disable-tcp-nodelay",
    "repl-diskless-load",
    "repl-diskless-sync",
    "repl-diskless-sync-delay",
    "repl-diskless-sync-max-replicas",
    "repl-ping-replica-period",
    "repl-timeout",
    "replica-lazy-flush",
    "replica-priority",
    "replica-serve-stale-data",
    "sanitize-dump-payload",
    "save",
    "set-max-intset-entries",
    "set-proc-title",
    "slowlog-log-slower-than",
    "slowlog-max-len",
    "stop-writes-on-bgsave-error",
    "stream-node-max-bytes",
    "stream-node-max-entries",
    "tracking-table-max-keys",
    "zset-max-listpack-entries",
    "zset-max-listpack-value",
    "zset-max-ziplist-entries",
    "zset-max-ziplist-value",
];

/// What asks for something that is not done here, with the value for which it asks nothing, and why not.
const REFUSED: &[(&str, &str, &str)] = &[
    ("aclfile", "", "there are no users but 'default' yet"),
    ("cluster-enabled", "no", "every node has all keys: give `peers` instead"),
    ("daemonize", "no", "the process stays in the foreground: let a service manager run it"),
    (
        "maxmemory",
        "0",
        "nothing is evicted yet: rows lie on the disk, `cache-bytes` bounds memory for them",
    ),
    ("maxmemory-policy", "noeviction", "nothing is evicted yet"),
    ("notify-keyspace-events", "", "there are no notifications yet"),
    ("port-tls", "0", "there is no TLS yet"),
    ("rename-command", "", "commands keep their names"),
    ("replicaof", "no one", "every node takes writes: give `peers` instead"),
    ("slaveof", "no one", "every node takes writes: give `peers` instead"),
    ("supervised", "no", "the process does not report to a supervisor"),
    ("tls-port", "0", "there is no TLS yet"),
    ("user", "", "there are no users but 'default' yet"),
];

/// What becomes of a directive of Redis that is none of ours: passed over, or refused. `None`: it is no such.
pub(super) fn foreign(name: &str, value: &str) -> Option<Result<(), &'static str>> {
    let name = name.to_ascii_lowercase();
    if PASSED_OVER.contains(&name.as_str()) {
        return Some(Ok(()));
    }
    let (_, harmless, why) = REFUSED.iter().find(|(refused, ..)| *refused == name)?;
    Some(if value.eq_ignore_ascii_case(harmless) { Ok(()) } else { Err(why) })
}

/// The words of a line, split as an inline request is; none for a comment. `None`: its quotes are not
/// balanced, or a word is no text.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    if line.trim_start().starts_with('#') {
        return Some(Vec::new());
    }
    let (mut bytes, mut spans) = (Vec::new(), Vec::new());
    split_line(line.as_bytes(), &mut bytes, &mut spans)?;
    let text = |span| std::str::from_utf8(bytes.get(span)?).ok().map(str::to_owned);
    spans.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::find;

    #[test]
    fn a_line_is_words() {
        for (line, expected) in [
            ("", vec![]),
            ("  # port 1", vec![]),
            ("port 7001", vec!["port", "7001"]),
            ("  save  60\t1 ", vec!["save", "60", "1"]),
            (r#"save """#, vec!["save", ""]),
            (r#"requirepass "a b\x41\n\"""#, vec!["requirepass", "a bA\n\""]),
            (r"requirepass 'a \'b\' \n'", vec!["requirepass", r"a 'b' \n"]),
            (r"requirepass a#b", vec!["requirepass", "a#b"]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        for line in [r#"port "7001"#, "port '7001", r#"port "70"01"#, "a 'b'c"] {
            assert_eq!(words(line), None, "{line}");
        }
    }

    #[test]
    fn a_directive_is_ours_or_redis_s() {
        let foreign_names = PASSED_OVER.iter().chain(REFUSED.iter().map(|(name, ..)| name));
        for name in foreign_names {
            let ours = find(name);
            assert!(ours.is_none_or(|option| option.fixed), "{name} is an option");
        }
        assert!(PASSED_OVER.is_sorted());
        assert_eq!(foreign("HZ", "10"), Some(Ok(())));
        assert_eq!(foreign("cluster-enabled", "no"), Some(Ok(())));
        assert!(foreign("cluster-enabled", "yes").unwrap().is_err());
        assert_eq!(foreign("port", "1"), None);
    }
}
