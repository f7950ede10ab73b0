//! Options: from the command line, a file in the form of redis.conf and CONFIG SET.

mod file;
mod options;
mod parse;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::logging::Level;

pub use options::OPTIONS;
pub use parse::bytes;

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

/// Who may run DEBUG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Debuggers {
    /// Nobody.
    #[default]
    Nobody,
    /// Clients on this machine.
    Local,
    /// Everybody.
    Everybody,
}

/// All options' values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Port for clients.
    pub port: u16,
    /// Addresses to listen on, separated by spaces; one with a leading `-` may be missing.
    pub bind: String,
    /// Whether clients from elsewhere are refused as long as there is no password.
    pub protected_mode: bool,
    /// What clients have to give; empty for nothing.
    pub password: String,
    /// Path of a socket for clients, empty for none.
    pub unixsocket: PathBuf,
    /// Its rights; 0 for those that the process gives.
    pub unixsocketperm: u32,
    /// Connections that may wait to be accepted.
    pub tcp_backlog: i32,
    /// Who may run DEBUG.
    pub debug_command: Debuggers,
    /// File for the number of the process, empty for none.
    pub pidfile: PathBuf,
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
    /// Address of the peer port; there is one once the defaults are set.
    pub peer_bind: Option<IpAddr>,
    /// What peers are told to dial, `host` or `host:port`; empty for the address of the peer port.
    pub peer_announce: String,
    /// Peers to connect to, `host:port` separated by spaces.
    pub peers: String,
    /// Seconds that commits of peers may be stamped ahead of this node's clock.
    pub clock_max_drift: u64,
    /// Nodes with another word are refused.
    pub cluster_id: String,
    /// What peers prove to each other that they know.
    pub cluster_secret: String,
    /// Directives of Redis that were given and mean nothing here.
    pub passed_over: Vec<String>,
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
    /// Whether it has one value only.
    pub fixed: bool,
    set: fn(&mut Config, &str) -> Result<(), String>,
    get: fn(&Config) -> String,
}

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

    /// What a command line asks for: `[file|-] [--option value ...]`, on top of what the environment says.
    /// The error is a line for the user.
    pub fn from_arguments(arguments: impl IntoIterator<Item = String>) -> Result<Wanted, String> {
        let arguments: Vec<String> = arguments.into_iter().collect();
        let says = |names: [&str; 2]| arguments.iter().any(|it| names.contains(&it.as_str()));
        if says(["--help", "-h"]) {
            return Ok(Wanted::Help);
        }
        if says(["--version", "-v"]) {
            return Ok(Wanted::Version);
        }
        let mut words = arguments.into_iter().peekable();
        let mut config = Config::defaults();
        if let Ok(password) = std::env::var("LATTIS_PASSWORD") {
            config.password = password;
        }
        if let Some(name) = words.next_if(|word| !word.starts_with("--")) {
            config.read(&name)?;
        }
        while let Some(argument) = words.next() {
            let flag = argument
                .strip_prefix("--")
                .ok_or_else(|| format!("'{argument}' is not an option: options begin with --"))?;
            let (name, values) = match flag.split_once('=') {
                Some((name, value)) => (name, vec![value.to_owned()]),
                None => {
                    let mut values: Vec<String> = words.next().into_iter().collect();
                    values.extend(std::iter::from_fn(|| words.next_if(|it| !it.starts_with("--"))));
                    (flag, values)
                }
            };
            match name {
                "check" | "repair" => {
                    let directory = values.first().ok_or(format!("--{name} needs a directory"))?;
                    let directory = PathBuf::from(directory);
                    return Ok(match name {
                        "check" => Wanted::Check(directory),
                        _ => Wanted::Repair(directory),
                    });
                }
                _ => config.apply(name, &values).map_err(|why| why.on_a_line())?,
            }
        }
        config.complete()?;
        Ok(Wanted::Run(Box::new(config)))
    }

    /// Sets one directive, of ours or of Redis.
    fn apply(&mut self, name: &str, values: &[String]) -> Result<(), Misfit> {
        let value = values.join(" ");
        if let Some(why) = file::foreign(name, &value) {
            return match why {
                Ok(()) => {
                    let name = name.to_ascii_lowercase();
                    if !self.passed_over.contains(&name) {
                        self.passed_over.push(name);
                    }
                    Ok(())
                }
                Err(why) => Err(Misfit::Value { name: name.into(), value, why: why.into() }),
            };
        }
        let Some(option) = find(name) else {
            return Err(Misfit::Name { name: name.into(), like: alike(name) });
        };
        if values.is_empty() {
            return Err(Misfit::Missing { name: name.into() });
        }
        let set = option.set(self, &value);
        set.map_err(|why| Misfit::Value { name: name.into(), value, why })
    }

    /// Reads a file of directives, `-` for the standard input.
    fn read(&mut self, name: &str) -> Result<(), String> {
        let text = match name {
            "-" => std::io::read_to_string(std::io::stdin()),
            _ => std::fs::read_to_string(Path::new(name)),
        };
        let text = text.map_err(|error| format!("can't open config file '{name}': {error}"))?;
        for (at, line) in text.lines().enumerate() {
            let refused = |why: &dyn std::fmt::Display| {
                format!("{name}, line {}: '{}': {why}", at + 1, line.trim())
            };
            match file::words(line) {
                None => return Err(refused(&"Unbalanced quotes in configuration line")),
                Some(words) => {
                    if let Some((directive, values)) = words.split_first() {
                        self.apply(directive, values).map_err(|why| refused(&why.in_a_file()))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What follows from several options, and what they must not be together.
    fn complete(&mut self) -> Result<(), String> {
        if self.peer_port == 0 {
            let port = self.port.checked_add(10_000).filter(|_| self.port > 0);
            self.peer_port = port.ok_or_else(|| match self.port {
                0 => "without a --port a --peer-port is needed".to_owned(),
                port => format!("--port {port}: port + 10000 is no port, give a --peer-port"),
            })?;
        }
        if self.port == 0 && self.unixsocket.as_os_str().is_empty() {
            return Err("neither a --port nor a --unixsocket: nobody could connect".into());
        }
        let ip = self.peer_socket().ip();
        if !ip.is_loopback() && self.cluster_secret.is_empty() {
            return Err(format!("--peer-bind {ip}: off loopback a --cluster-secret is required"));
        }
        Ok(())
    }

    /// Where to listen for peers.
    pub fn peer_socket(&self) -> SocketAddr {
        let ip = self.peer_bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        SocketAddr::new(ip, self.peer_port)
    }

    /// Where peers are told to dial.
    pub fn peer_address(&self) -> String {
        let announced = &self.peer_announce;
        if announced.is_empty() {
            return self.peer_socket().to_string();
        }
        match parse::ip(announced) {
            Ok(ip) => SocketAddr::new(ip, self.peer_port).to_string(),
            Err(_) if announced.contains(':') => announced.clone(),
            Err(_) => format!("{announced}:{}", self.peer_port),
        }
    }

    /// Whether a password is the one that clients have to give. Takes as long for any.
    pub fn admits(&self, password: &[u8]) -> bool {
        let [wanted, given] = [self.password.as_bytes(), password].map(Sha256::digest);
        self.password.is_empty() || bool::from(wanted.as_slice().ct_eq(given.as_slice()))
    }

    /// Where to listen for clients, and whether the address may be missing on this machine.
    pub fn listen_addresses(&self) -> Vec<(SocketAddr, bool)> {
        if self.port == 0 {
            return Vec::new();
        }
        let list = parse::addresses(&self.bind).unwrap_or_default();
        list.into_iter().map(|(ip, optional)| (SocketAddr::new(ip, self.port), optional)).collect()
    }
}

/// The text of `--help`.
pub fn help() -> String {
    let mut text = String::from(
        "Lattis: a server of CRDTs that speaks the Redis protocol.\n\n\
         lattis-server [file] [--option value ...]\n\
         lattis-server --check directory    what of its data can be read\n\
         lattis-server --repair directory   makes a directory of that\n\
         lattis-server --help | --version\n\n\
         The file has a directive on each line, as redis.conf has; - is the standard input.\n\
         LATTIS_PASSWORD in the environment is a requirepass.\n\n",
    );
    for option in OPTIONS.iter().filter(|option| !option.fixed) {
        let default = if option.default.is_empty() { "''" } else { option.default };
        let _ = writeln!(text, "  --{} (default {default})\n      {}", option.name, option.doc);
    }
    text
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Wanted {
    /// A node.
    Run(Box<Config>),
    /// The text of `--help`.
    Help,
    /// The version.
    Version,
    /// To read a directory through.
    Check(PathBuf),
    /// To make a directory of what can be read.
    Repair(PathBuf),
}

/// Why a directive was not taken.
enum Misfit {
    /// There is none of that name, but perhaps one like it.
    Name { name: String, like: Option<&'static str> },
    /// Its value is missing.
    Missing { name: String },
    /// Its value is none.
    Value { name: String, value: String, why: String },
}

impl Misfit {
    fn on_a_line(self) -> String {
        match self {
            Misfit::Name { name, like: Some(like) } => {
                format!("unknown option --{name}: did you mean --{like}?")
            }
            Misfit::Name { name, like: None } => format!("unknown option --{name}"),
            Misfit::Missing { name } => format!("--{name} needs a value"),
            Misfit::Value { name, value, why } => format!("--{name} {value}: {why}"),
        }
    }

    fn in_a_file(self) -> String {
        match self {
            Misfit::Name { like: Some(like), .. } => {
                format!("Bad directive or wrong number of arguments (did you mean {like}?)")
            }
            Misfit::Name { .. } | Misfit::Missing { .. } => {
                "Bad directive or wrong number of arguments".into()
            }
            Misfit::Value { why, .. } => why,
        }
    }
}

/// The option whose name is nearest to a mistyped one, if it is near.
fn alike(name: &str) -> Option<&'static str> {
    let near = |option: &ConfigOption| distance(option.name.as_bytes(), name.as_bytes());
    let nearest = OPTIONS.iter().min_by_key(|option| near(option))?;
    (near(nearest) <= 2.min(name.len() / 2)).then_some(nearest.name)
}

/// Letters that have to be changed, added or left out to make one word of another (Levenshtein, 1965).
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.iter().enumerate() {
        let mut before = std::mem::replace(&mut row[0], at + 1);
        for (to, wanted) in other.iter().enumerate() {
            let changed = before + usize::from(letter != wanted);
            before = row[to + 1];
            row[to + 1] = changed.min(before + 1).min(row[to] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Config, String> {
        match Config::from_arguments(line.split_whitespace().map(str::to_owned))? {
            Wanted::Run(config) => Ok(*config),
            other => panic!("{other:?}"),
        }
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
        let config = parsed("--port 7001 --dir d1 --appendfsync always --cache-bytes=2mb").unwrap();
        assert_eq!((config.port, config.peer_port), (7001, 17001));
        assert_eq!(config.appendfsync, AppendFsync::Always);
        assert_eq!(config.cache_bytes, 2 << 20);
        assert_eq!(config.databases, 16);
        let config = parsed("--peers 127.0.0.1:1 [::1]:2 --bind ::1 -127.0.0.1").unwrap();
        assert_eq!((&*config.peers, &*config.bind), ("127.0.0.1:1 [::1]:2", "::1 -127.0.0.1"));
        assert_eq!(parsed("--peer-bind [::1]").unwrap().peer_address(), "[::1]:16379");
        for (announced, address) in [
            ("eu.example", "eu.example:16379"),
            ("eu.example:7", "eu.example:7"),
            ("::1", "[::1]:16379"),
            ("[::1]:7", "[::1]:7"),
        ] {
            let config = parsed(&format!("--peer-announce {announced}")).unwrap();
            assert_eq!(config.peer_address(), address);
        }
        for bad in [
            "port 1",
            "--port",
            "--port x",
            "--port 70000",
            "--nonsense 1",
            "--peer-bind 0.0.0.0",
            "--port 0",
            "--port 0 --peer-port 7",
            "--maxmemory 100mb",
            "--cluster-enabled yes",
            "--bind nowhere",
            "--peers 127.0.0.1",
            "--port 60000",
            "--node-name a/b",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        assert_eq!(parsed("--prot 1").unwrap_err(), "unknown option --prot: did you mean --port?");
        assert_eq!(parsed("--nonsense 1").unwrap_err(), "unknown option --nonsense");
        assert!(parsed("--port 0 --peer-port 7 --unixsocket s").is_ok());
        let of_redis =
            parsed("--save 60 1 --appendonly no --hz 10 --hz 20 --daemonize no").unwrap();
        assert_eq!(of_redis.passed_over, ["save", "appendonly", "hz", "daemonize"]);
        for line in ["--port 1 --help", "-h", "--version", "--port x -v"] {
            let words = line.split_whitespace().map(str::to_owned);
            let wanted = Config::from_arguments(words).unwrap();
            assert!(matches!(wanted, Wanted::Help | Wanted::Version), "{line}");
        }
    }

    #[test]
    fn sizes() {
        use super::parse;
        assert_eq!(bytes("10"), Some(10));
        assert_eq!(bytes("1k"), Some(1000));
        assert_eq!(bytes("1KB"), Some(1024));
        assert_eq!(bytes("2gb"), Some(2 << 30));
        assert_eq!(bytes("mb"), None);
        assert_eq!(bytes("1tb"), None);
        assert_eq!(bytes("99999999999gb"), None);
        assert_eq!(parse::output_limit("normal 1mb 0 0"), Ok(1 << 20));
        assert!(parse::output_limit("normal 1mb").is_err());
    }

    #[test]
    fn secrets_stay_secret() {
        let config = parsed("--cluster-secret s").unwrap();
        assert_eq!(config.cluster_secret, "s");
        assert_eq!(find("CLUSTER-SECRET").unwrap().get(&config), "");
    }
}
