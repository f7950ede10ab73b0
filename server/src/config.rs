//! Options: one record each, from which flags, CONFIG GET, CONFIG SET and the help text come.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::logging::Level;

/// When the log is synced to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendFsync {
    /// Before each reply.
    Always,
    /// Once a second.
    #[default]
    EverySec,
    /// When the kernel likes.
    No,
}

/// All options' values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Port for clients.
    pub port: u16,
    /// Addresses to listen on, separated by spaces; one with a leading `-` may be missing.
    pub bind: String,
    /// The directory of the data.
    pub dir: PathBuf,
    /// File for the log of what happens, empty for the standard error.
    pub logfile: PathBuf,
    /// What that log tells.
    pub loglevel: Level,
    /// Number of databases.
    pub databases: u16,
    /// When the log is synced.
    pub appendfsync: AppendFsync,
    /// Most clients.
    pub maxclients: usize,
    /// Seconds after which an idle client is disconnected, 0 for never.
    pub timeout: u64,
    /// Seconds of silence before TCP asks a client whether it is there, 0 for never.
    pub tcp_keepalive: u64,
    /// Longest argument of a request.
    pub proto_max_bulk_len: u64,
    /// Most bytes of requests that a client may have pending.
    pub client_query_buffer_limit: usize,
    /// Most bytes of replies that a client may have pending, 0 for no limit.
    pub output_buffer_limit: usize,
    /// Memory for hot rows.
    pub cache_bytes: usize,
    /// Size of the log beyond which it is trimmed.
    pub log_max_bytes: u64,
    /// Most bytes that one transaction may write.
    pub transaction_max_bytes: usize,
    /// The node's name among its peers.
    pub node_name: String,
    /// Port for peers; 0 for port + 10000.
    pub peer_port: u16,
    /// Address of the peer port.
    pub peer_bind: String,
    /// Peers to connect to, `host:port` separated by spaces.
    pub peers: String,
    /// Seconds that commits of peers may be stamped ahead of this node's clock.
    pub clock_max_drift: u64,
    /// Nodes with another word are refused.
    pub cluster_id: String,
    /// What peers prove to each other that they know.
    pub cluster_secret: String,
}

/// One option.
pub struct ConfigOption {
    /// Its name in flags and in CONFIG.
    pub name: &'static str,
    /// Its value at first.
    pub default: &'static str,
    /// What it is, in a line.
    pub doc: &'static str,
    /// Whether CONFIG SET may change it.
    pub live: bool,
    /// Whether its value is kept from CONFIG GET.
    pub secret: bool,
    set: fn(&mut Config, &str) -> Result<(), String>,
    get: fn(&Config) -> String,
}

const MB: u64 = 1 << 20;

macro_rules! option {
    ($name:literal, $default:literal, $live:literal, $doc:literal, $set:expr, $get:expr) => {
        ConfigOption {
            name: $name,
            default: $default,
            doc: $doc,
            live: $live,
            secret: false,
            set: $set,
            get: $get,
        }
    };
}

/// An option that clients ask for and that has only one value here.
macro_rules! fixed {
    ($name:literal, $value:literal, $doc:literal) => {
        option!($name, $value, true, $doc, |_, text| choice(text, &[$value]).map(|_| ()), |_| {
            $value.into()
        })
    };
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
        "port for clients",
        |c, t| number(t, 1, 65535).map(|n| c.port = n as u16),
        |c| c.port.to_string()
    ),
    option!(
        "bind",
        "127.0.0.1 -::1",
        false,
        "addresses to listen on for clients; only loopback ones until passwords exist",
        |c, t| {
            addresses(t)?;
            c.bind = t.into();
            Ok(())
        },
        |c| c.bind.clone()
    ),
    option!(
        "dir",
        "lattis-data",
        false,
        "directory of the data",
        |c, t| {
            c.dir = t.into();
            Ok(())
        },
        |c| c.dir.display().to_string()
    ),
    option!(
        "logfile",
        "",
        false,
        "file for the log of what happens, '' for the standard error; opened anew at SIGHUP",
        |c, t| {
            c.logfile = t.into();
            Ok(())
        },
        |c| c.logfile.display().to_string()
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
        |c, t| word(t).map(|t| c.peer_bind = t),
        |c| c.peer_bind.clone()
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
    ConfigOption {
        name: "cluster-secret",
        default: "",
        doc: "what peers prove to each other that they know",
        live: false,
        secret: true,
        set: |c, t| {
            c.cluster_secret = t.into();
            Ok(())
        },
        get: |c| c.cluster_secret.clone(),
    },
    fixed!("save", "", "snapshots: none are taken, every write is in the log"),
    fixed!("appendonly", "yes", "the log is always written"),
    fixed!("maxmemory", "0", "no limit"),
    fixed!("maxmemory-policy", "noeviction", "nothing is ever evicted"),
    fixed!("replica-read-only", "yes", "there are no replicas: every node takes writes"),
    fixed!("slave-read-only", "yes", "the same under its old name"),
    fixed!("tcp-backlog", "511", "connections that wait to be accepted"),
];

/// The option of that name, in any case.
pub fn find(name: &str) -> Option<&'static ConfigOption> {
    OPTIONS.iter().find(|option| option.name.eq_ignore_ascii_case(name))
}

impl ConfigOption {
    /// Parses and sets; the error is in Redis's words.
    pub fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        (self.set)(config, text)
    }

    /// The value as text.
    pub fn get(&self, config: &Config) -> String {
        if self.secret { String::new() } else { (self.get)(config) }
    }
}

impl Config {
    /// Every option at its default.
    pub fn defaults() -> Config {
        let mut config = Config::default();
        for option in OPTIONS {
            // The defaults are tested to be values.
            let _ = option.set(&mut config, option.default);
        }
        config
    }

    /// Reads `--name value` pairs. The error is a line for the user.
    pub fn from_arguments(arguments: impl IntoIterator<Item = String>) -> Result<Config, String> {
        let mut config = Config::defaults();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let flag = argument
                .strip_prefix("--")
                .ok_or_else(|| format!("'{argument}' is not an option: options begin with --"))?;
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, arguments.next()),
            };
            let option = find(name).ok_or_else(|| format!("unknown option --{name}"))?;
            let value = value.ok_or_else(|| format!("--{name} needs a value"))?;
            option.set(&mut config, &value).map_err(|why| format!("--{name} {value}: {why}"))?;
        }
        if config.peer_port == 0 {
            config.peer_port = config.port.checked_add(10_000).ok_or_else(|| {
                format!("--port {}: port + 10000 is no port, give a --peer-port", config.port)
            })?;
        }
        Ok(config)
    }

    /// Where to listen for clients, and whether the address may be missing on this machine.
    pub fn listen_addresses(&self) -> Vec<(SocketAddr, bool)> {
        let list = addresses(&self.bind).unwrap_or_default();
        list.into_iter().map(|(ip, optional)| (SocketAddr::new(ip, self.port), optional)).collect()
    }
}

/// The text of `--help`.
pub fn help() -> String {
    let mut text = String::from(
        "Lattis: a server of CRDTs that speaks the Redis protocol.\n\n\
         lattis-server [--option value ...]\n\n",
    );
    for option in OPTIONS {
        let default = if option.default.is_empty() { "''" } else { option.default };
        let _ = writeln!(text, "  --{} (default {default})\n      {}", option.name, option.doc);
    }
    text
}

// ---- parsers, with the texts of Redis

fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let value: i128 = text.parse().map_err(|_| "argument couldn't be parsed into an integer")?;
    u64::try_from(value)
        .ok()
        .filter(|value| (min..=max).contains(value))
        .ok_or_else(|| format!("argument must be between {min} and {max} inclusive"))
}

fn memory(text: &str, min: u64, max: u64) -> Result<u64, String> {
    bytes(text)
        .ok_or_else(|| String::from("argument must be a memory value"))
        .and_then(|value| number(&value.to_string(), min, max))
}

/// A size as redis.conf writes it: `100`, `1k` (1000), `1kb` (1024), `1m`, `1mb`, `1g`, `1gb`.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn choice(text: &str, choices: &[&str]) -> Result<usize, String> {
    choices
        .iter()
        .position(|choice| choice.eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("argument(s) must be one of the following: {}", choices.join(", ")))
}

fn word(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(good) {
        return Err("argument must be 1 to 64 letters, digits, '-', '_' or '.'".into());
    }
    Ok(text.into())
}

fn addresses(text: &str) -> Result<Vec<(IpAddr, bool)>, String> {
    let mut list = Vec::new();
    for word in text.split_whitespace() {
        let (name, optional) = word.strip_prefix('-').map_or((word, false), |name| (name, true));
        let name = if name == "localhost" { "127.0.0.1" } else { name };
        let ip: IpAddr = name.parse().map_err(|_| format!("'{name}' is not an IP address"))?;
        if !ip.is_loopback() {
            return Err(format!(
                "{ip} is not a loopback address: there are no passwords yet, \
                 so clients are served on this machine only"
            ));
        }
        list.push((ip, optional));
    }
    if list.is_empty() { Err("at least one address is needed".into()) } else { Ok(list) }
}

fn peer_list(text: &str) -> Result<(), String> {
    for word in text.split_whitespace() {
        let port = word.rsplit_once(':').and_then(|(host, port)| {
            (!host.is_empty()).then_some(port)?.parse::<u16>().ok().filter(|port| *port > 0)
        });
        if port.is_none() {
            return Err(format!("'{word}' is not host:port"));
        }
    }
    Ok(())
}

fn output_limit(text: &str) -> Result<usize, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    let mut normal = None;
    for class in words.chunks(4) {
        let [name, hard, soft, seconds] = class else { continue };
        if !["normal", "slave", "replica", "pubsub"].contains(name) {
            return Err("Invalid client class specified in buffer limit configuration.".into());
        }
        let limits = (bytes(hard), bytes(soft), seconds.parse::<u32>());
        let (Some(hard), Some(_), Ok(_)) = limits else {
            return Err(
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.".into(),
            );
        };
        if *name == "normal" {
            normal = usize::try_from(hard).ok();
        }
    }
    normal.ok_or_else(|| "Only the class 'normal' has a limit here.".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        Config::from_arguments(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn defaults_are_values_and_survive_a_round_trip() {
        for option in OPTIONS {
            let mut config = Config::default();
            option.set(&mut config, option.default).unwrap();
            if !option.secret {
                let shown = option.get(&config);
                option.set(&mut config, &shown).unwrap();
                assert_eq!(option.get(&config), shown, "{}", option.name);
            }
            assert!(!option.doc.is_empty());
            assert_eq!(OPTIONS.iter().filter(|o| o.name == option.name).count(), 1);
        }
    }

    #[test]
    fn arguments() {
        let config = parse("--port 7001 --dir d1 --appendfsync always --cache-bytes=2mb").unwrap();
        assert_eq!((config.port, config.peer_port), (7001, 17001));
        assert_eq!(config.appendfsync, AppendFsync::Always);
        assert_eq!(config.cache_bytes, 2 << 20);
        assert_eq!(config.databases, 16);
        let peers = ["--peers".to_owned(), "127.0.0.1:1 [::1]:2".to_owned()];
        assert_eq!(Config::from_arguments(peers).unwrap().peers, "127.0.0.1:1 [::1]:2");
        for bad in [
            "port 1",
            "--port",
            "--port x",
            "--port 70000",
            "--nonsense 1",
            "--bind 0.0.0.0",
            "--bind nowhere",
            "--peers 127.0.0.1",
            "--port 60000",
            "--node-name a/b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("--bind 0.0.0.0").unwrap_err().contains("not a loopback address"));
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("10"), Some(10));
        assert_eq!(bytes("1k"), Some(1000));
        assert_eq!(bytes("1KB"), Some(1024));
        assert_eq!(bytes("2gb"), Some(2 << 30));
        assert_eq!(bytes("mb"), None);
        assert_eq!(bytes("1tb"), None);
        assert_eq!(bytes("99999999999gb"), None);
        assert_eq!(output_limit("normal 1mb 0 0"), Ok(1 << 20));
        assert!(output_limit("normal 1mb").is_err());
    }

    #[test]
    fn secrets_stay_secret() {
        let config = parse("--cluster-secret s").unwrap();
        assert_eq!(config.cluster_secret, "s");
        assert_eq!(find("CLUSTER-SECRET").unwrap().get(&config), "");
    }
}
