//! The table of options: one record each.

use super::parse::*;
use super::{AppendFsync, ConfigOption, Debuggers};
use crate::logging::Level;

const MB: u64 = 1 << 20;

macro_rules! option {
    ($name:literal, $default:literal, $live:literal, $doc:literal, $set:expr, $get:expr) => {
        ConfigOption {
            name: $name,
            default: $default,
            doc: $doc,
            live: $live,
            secret: false,
            fixed: false,
            set: $set,
            get: $get,
        }
    };
}

/// An option whose value is a path, for the next start.
macro_rules! path {
    ($name:literal, $default:literal, $doc:literal, $field:ident) => {
        option!(
            $name,
            $default,
            false,
            $doc,
            |c, t| {
                c.$field = t.into();
                Ok(())
            },
            |c| c.$field.display().to_string()
        )
    };
}

/// An option whose value nobody is shown.
macro_rules! secret {
    ($name:literal, $live:literal, $doc:literal, $field:ident) => {
        ConfigOption {
            secret: true,
            ..option!(
                $name,
                "",
                $live,
                $doc,
                |c, t| {
                    c.$field = t.into();
                    Ok(())
                },
                |c| c.$field.clone()
            )
        }
    };
}

/// An option that clients ask for and that has only one value here.
macro_rules! fixed {
    ($name:literal, $value:literal, $doc:literal) => {
        ConfigOption {
            fixed: true,
            ..option!(
                $name,
                $value,
                true,
                $doc,
                |_, text| choice(text, &[$value]).map(|_| ()),
                |_| { $value.into() }
            )
        }
    };
}

const DEBUGGERS: [Debuggers; 3] = [Debuggers::Nobody, Debuggers::Everybody, Debuggers::Local];

fn shown(yes: bool) -> String {
    if yes { "yes".into() } else { "no".into() }
}

const LOG_LEVELS: [(&str, Level); 4] = [
    ("debug", Level::Debug),
    ("verbose", Level::Verbose),
    ("notice", Level::Notice),
    ("warning", Level::Warning),
];

/// All options.
pub static OPTIONS: &[ConfigOption] = &[
    option!(
        "port",
        "6379",
        false,
        "port for clients; 0 for none",
        |c, t| number(t, 0, 65535).map(|n| c.port = n as u16),
        |c| c.port.to_string()
    ),
    option!(
        "bind",
        "127.0.0.1 -::1",
        false,
        "addresses to listen on for clients; one with a leading - may be missing",
        |c, t| {
            addresses(t)?;
            c.bind = t.into();
            Ok(())
        },
        |c| c.bind.clone()
    ),
    option!(
        "protected-mode",
        "yes",
        true,
        "without a password clients are served on this machine only",
        |c, t| yes(t).map(|on| c.protected_mode = on),
        |c| shown(c.protected_mode)
    ),
    secret!(
        "requirepass",
        true,
        "password that clients have to give (AUTH, HELLO); '' for none",
        password
    ),
    path!(
        "unixsocket",
        "",
        "path of a socket for clients on this machine; '' for none",
        unixsocket
    ),
    option!(
        "unixsocketperm",
        "0",
        false,
        "rights of that socket, in octal; 0 for what the umask leaves",
        |c, t| mode(t).map(|mode| c.unixsocketperm = mode),
        |c| format!("{:o}", c.unixsocketperm)
    ),
    option!(
        "tcp-backlog",
        "511",
        false,
        "connections that may wait to be accepted",
        |c, t| number(t, 1, i32::MAX as u64).map(|n| c.tcp_backlog = n as i32),
        |c| c.tcp_backlog.to_string()
    ),
    option!(
        "enable-debug-command",
        "no",
        false,
        "who may run DEBUG: no (nobody), local (clients on this machine), yes",
        |c, t| choice(t, &["no", "yes", "local"]).map(|at| c.debug_command = DEBUGGERS[at]),
        |c| match c.debug_command {
            Debuggers::Nobody => "no".into(),
            Debuggers::Everybody => "yes".into(),
            Debuggers::Local => "local".into(),
        }
    ),
    path!("pidfile", "", "file for the number of the process, '' for none", pidfile),
    path!("dir", "lattis-data", "directory of the data", dir),
    path!(
        "logfile",
        "",
        "file for the log of what happens, '' for the standard error; opened anew at SIGHUP",
        logfile
    ),
    option!(
        "loglevel",
        "notice",
        true,
        "what is told: debug, verbose (what is normal, too), notice, warning",
        |c, t| choice(t, &LOG_LEVELS.map(|(name, _)| name)).map(|at| c.loglevel = LOG_LEVELS[at].1),
        |c| LOG_LEVELS.iter().find(|(_, it)| *it == c.loglevel).map_or("", |(name, _)| name).into()
    ),
    option!(
        "databases",
        "16",
        false,
        "number of databases",
        |c, t| number(t, 1, 65535).map(|n| c.databases = n as u16),
        |c| c.databases.to_string()
    ),
    option!(
        "appendfsync",
        "everysec",
        true,
        "when the log is synced: always (before the reply), everysec, no (when the kernel likes)",
        |c, t| {
            c.appendfsync = match choice(t, &["everysec", "always", "no"])? {
                0 => AppendFsync::EverySec,
                1 => AppendFsync::Always,
                _ => AppendFsync::No,
            };
            Ok(())
        },
        |c| match c.appendfsync {
            AppendFsync::Always => "always".into(),
            AppendFsync::EverySec => "everysec".into(),
            AppendFsync::No => "no".into(),
        }
    ),
    option!(
        "maxclients",
        "10000",
        true,
        "most clients at a time",
        |c, t| number(t, 1, u64::from(u32::MAX)).map(|n| c.maxclients = n as usize),
        |c| c.maxclients.to_string()
    ),
    option!(
        "timeout",
        "0",
        true,
        "seconds after which an idle client is disconnected, 0 for never",
        |c, t| number(t, 0, i32::MAX as u64).map(|n| c.timeout = n),
        |c| c.timeout.to_string()
    ),
    option!(
        "tcp-keepalive",
        "300",
        true,
        "seconds after which a silent client is asked by TCP whether it is there, 0 for never",
        |c, t| number(t, 0, i32::MAX as u64).map(|n| c.tcp_keepalive = n),
        |c| c.tcp_keepalive.to_string()
    ),
    option!(
        "proto-max-bulk-len",
        "512mb",
        true,
        "longest argument of a request",
        |c, t| memory(t, MB, i64::MAX as u64).map(|n| c.proto_max_bulk_len = n),
        |c| c.proto_max_bulk_len.to_string()
    ),
    option!(
        "client-query-buffer-limit",
        "1gb",
        true,
        "most bytes of requests that one client may have pending",
        |c, t| memory(t, MB, i64::MAX as u64).map(|n| c.client_query_buffer_limit = n as usize),
        |c| c.client_query_buffer_limit.to_string()
    ),
    option!(
        "client-output-buffer-limit",
        "normal 1gb 0 0",
        true,
        "most bytes of replies that one client may have pending: class, hard limit, soft limit, seconds",
        |c, t| output_limit(t).map(|n| c.output_buffer_limit = n),
        |c| format!("normal {} 0 0", c.output_buffer_limit)
    ),
    option!(
        "cache-bytes",
        "256mb",
        false,
        "memory for hot rows",
        |c, t| memory(t, MB, i64::MAX as u64).map(|n| c.cache_bytes = n as usize),
        |c| c.cache_bytes.to_string()
    ),
    option!(
        "log-max-bytes",
        "256mb",
        false,
        "size of the log of commits beyond which its beginning is trimmed",
        |c, t| memory(t, 0, i64::MAX as u64).map(|n| c.log_max_bytes = n),
        |c| c.log_max_bytes.to_string()
    ),
    option!(
        "transaction-max-bytes",
        "1gb",
        false,
        "most bytes of names and values that one command or transaction may write",
        |c, t| memory(t, MB, lattis_engine::MAX_BYTES as u64)
            .map(|n| c.transaction_max_bytes = n as usize),
        |c| c.transaction_max_bytes.to_string()
    ),
    option!(
        "node-name",
        "node",
        false,
        "name of this node among its peers",
        |c, t| word(t).map(|t| c.node_name = t),
        |c| c.node_name.clone()
    ),
    option!(
        "peer-port",
        "0",
        false,
        "port for peers; 0 for port + 10000",
        |c, t| number(t, 0, 65535).map(|n| c.peer_port = n as u16),
        |c| c.peer_port.to_string()
    ),
    option!(
        "peer-bind",
        "127.0.0.1",
        false,
        "address of the peer port; off loopback a cluster-secret is required",
        |c, t| ip(t).map(|ip| c.peer_bind = Some(ip)),
        |c| c.peer_socket().ip().to_string()
    ),
    option!(
        "peer-announce",
        "",
        false,
        "host or host:port that peers are told to dial; '' for peer-bind and peer-port",
        |c, t| {
            if !t.is_empty() {
                host(t)?;
            }
            c.peer_announce = t.into();
            Ok(())
        },
        |c| c.peer_announce.clone()
    ),
    option!(
        "peers",
        "",
        false,
        "peers to connect to: host:port host:port ...",
        |c, t| {
            peer_list(t)?;
            c.peers = t.into();
            Ok(())
        },
        |c| c.peers.clone()
    ),
    option!(
        "clock-max-drift",
        "60",
        false,
        "seconds that commits of peers may be stamped ahead of this clock; what is further ahead waits",
        |c, t| number(t, 1, 86_400 * 365).map(|n| c.clock_max_drift = n),
        |c| c.clock_max_drift.to_string()
    ),
    option!(
        "cluster-id",
        "lattis",
        false,
        "nodes with another word are refused",
        |c, t| word(t).map(|t| c.cluster_id = t),
        |c| c.cluster_id.clone()
    ),
    secret!(
        "cluster-secret",
        false,
        "what peers prove to each other that they know",
        cluster_secret
    ),
    fixed!("save", "", "snapshots: none are taken, every write is in the log"),
    fixed!("appendonly", "yes", "the log is always written"),
    fixed!("maxmemory", "0", "no limit"),
    fixed!("maxmemory-policy", "noeviction", "nothing is ever evicted"),
    fixed!("replica-read-only", "yes", "there are no replicas: every node takes writes"),
    fixed!("slave-read-only", "yes", "the same under its old name"),
];
