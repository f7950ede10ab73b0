//! The form of redis.conf: words of a line, and the directives of Redis that are known and not ours.

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

/// The words of a line: apart by space, in quotes with escapes as Redis has them; none for a comment. `None`:
/// a quote is not closed, or something follows it at once.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    if rest.starts_with('#') {
        return Some(words);
    }
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '"' => double_quoted(&rest[1..])?,
            '\'' => single_quoted(&rest[1..])?,
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if after.starts_with(|next: char| !next.is_whitespace()) {
            return None;
        }
        words.push(word);
        rest = after.trim_start();
    }
    Some(words)
}

fn single_quoted(text: &str) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut rest = text;
    loop {
        let at = rest.find(['\'', '\\'])?;
        word.push_str(&rest[..at]);
        if rest[at..].starts_with('\'') {
            return Some((word, &rest[at + 1..]));
        }
        let escaped = rest[at + 1..].starts_with('\'');
        word.push(if escaped { '\'' } else { '\\' });
        rest = &rest[at + 1 + usize::from(escaped)..];
    }
}

fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut word = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        match (*bytes.get(at)?, bytes.get(at + 1)) {
            (b'"', _) => return Some((String::from_utf8(word).ok()?, text.get(at + 1..)?)),
            (b'\\', Some(b'x')) if hex(bytes, at + 2).is_some() => {
                word.push(hex(bytes, at + 2)?);
                at += 4;
            }
            (b'\\', Some(next)) => {
                word.push(match next {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                at += 2;
            }
            (byte, _) => {
                word.push(byte);
                at += 1;
            }
        }
    }
}

fn hex(bytes: &[u8], at: usize) -> Option<u8> {
    let digits = std::str::from_utf8(bytes.get(at..at + 2)?).ok()?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
    u8::from_str_radix(digits, 16).ok()
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
