//! Real servers in temporary directories: started, killed, restarted, never left behind.
//!
//! [`Server::lattis`] starts the `lattis-server` that cargo built beside this program, and
//! [`Server::redis`] a real Redis. A server keeps its ports and directory over [`Server::kill`] and
//! [`Server::restart`]. Dropping it kills it; should this program itself be killed, a guard (a shell
//! that waits for the end of a pipe) kills what is left.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::resp::Client;

/// How long a server may take to answer its first PING, or to end when asked to.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds, for [`PATIENCE`] at most.
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The top folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A directory that is removed when it is dropped, unless the test has failed.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// An empty directory with that word in its name.
    pub fn new(word: &str) -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lattis-{word}-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary directory");
        TempDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("kept for inspection: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A port that nobody listens on and that this program has not given out before. It lies below the
/// range from which outgoing connections take theirs, so that it is still free after a restart.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    let (low, span) = (10_000, 20_000);
    let start = std::process::id().wrapping_mul(211) % span;
    for step in 0..span {
        let port = low + ((start + step) % span) as u16;
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("no free port");
}

/// What a Lattis node is started with; each field is a flag of the same name.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Client port.
    pub port: u16,
    /// Peer port.
    pub peer_port: u16,
    /// `--node-name`
    pub node_name: String,
    /// Peer addresses to dial, as `host:port`.
    pub peers: Vec<String>,
    /// `--cluster-id`
    pub cluster_id: Option<String>,
    /// `--cluster-secret`
    pub cluster_secret: Option<String>,
    /// `--appendfsync`
    pub appendfsync: Option<String>,
    /// `--log-max-bytes`
    pub log_max_bytes: Option<u64>,
    /// `--cache-bytes`
    pub cache_bytes: Option<u64>,
    /// Further flags, as they are.
    pub more: Vec<String>,
    /// Further variables of the environment.
    pub env: Vec<(String, String)>,
    /// How far the node's wall clock is off, as libfaketime reads it: `-1h`.
    pub clock: Option<String>,
}

impl NodeConfig {
    /// A node that knows no peers, on free ports.
    pub fn new(node_name: &str) -> NodeConfig {
        NodeConfig {
            port: free_port(),
            peer_port: free_port(),
            node_name: node_name.to_string(),
            peers: Vec::new(),
            cluster_id: None,
            cluster_secret: None,
            appendfsync: None,
            log_max_bytes: None,
            cache_bytes: None,
            more: Vec::new(),
            env: Vec::new(),
            clock: None,
        }
    }

    /// Nodes of which each dials all others.
    pub fn mesh(names: &[&str]) -> Vec<NodeConfig> {
        let mut nodes: Vec<NodeConfig> = names.iter().map(|name| NodeConfig::new(name)).collect();
        let ports: Vec<u16> = nodes.iter().map(|node| node.peer_port).collect();
        for node in &mut nodes {
            let others = ports.iter().filter(|port| **port != node.peer_port);
            node.peers = others.map(|port| format!("127.0.0.1:{port}")).collect();
        }
        nodes
    }

    fn flags(&self, dir: &Path) -> Vec<String> {
        let mut flags = vec![
            "--port".to_string(),
            self.port.to_string(),
            "--peer-port".to_string(),
            self.peer_port.to_string(),
            "--node-name".to_string(),
            self.node_name.clone(),
            "--dir".to_string(),
            dir.display().to_string(),
        ];
        let peers = (!self.peers.is_empty()).then(|| self.peers.join(" "));
        let optional = [
            ("--peers", peers),
            ("--cluster-id", self.cluster_id.clone()),
            ("--cluster-secret", self.cluster_secret.clone()),
            ("--appendfsync", self.appendfsync.clone()),
            ("--log-max-bytes", self.log_max_bytes.map(|n| n.to_string())),
            ("--cache-bytes", self.cache_bytes.map(|n| n.to_string())),
        ];
        for (flag, value) in optional {
            if let Some(value) = value {
                flags.extend([flag.to_string(), value]);
            }
        }
        flags.extend(self.more.iter().cloned());
        flags
    }
}

/// A server process, running or killed.
#[derive(Debug)]
pub struct Server {
    name: String,
    port: u16,
    binary: PathBuf,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    child: Option<Child>,
    log: PathBuf,
    data: PathBuf,
    dir: TempDir,
}

impl Server {
    /// Starts a Lattis node and waits until it answers.
    pub fn lattis(config: &NodeConfig) -> Server {
        let binary = lattis_server();
        let dir = TempDir::new(&config.node_name);
        let data = dir.path().join("data");
        let flags = config.flags(&data);
        let mut env = config.env.clone();
        if let Some(clock) = &config.clock {
            env.push(("LD_PRELOAD".to_string(), libfaketime().display().to_string()));
            // In a file, so that it can be set while the node runs.
            let file = dir.path().join(CLOCK);
            fs::write(&file, clock).expect("a clock");
            env.push(("FAKETIME_TIMESTAMP_FILE".to_string(), file.display().to_string()));
            env.push(("FAKETIME_CACHE_DURATION".to_string(), "1".to_string()));
            env.push(("FAKETIME_DONT_FAKE_MONOTONIC".to_string(), "1".to_string()));
        }
        Server::start(&config.node_name, config.port, binary, flags, env, data, dir)
    }

    /// Sets the wall clock of a node that was started with one of its own: `+0` is right. It takes a second.
    pub fn set_clock(&self, clock: &str) {
        fs::write(self.dir.path().join(CLOCK), clock).expect("a clock");
    }

    /// Starts a real Redis on a free port, with further flags, and waits until it answers.
    pub fn redis(more: &[&str]) -> Server {
        let dir = TempDir::new("redis");
        let data = dir.path().join("data");
        fs::create_dir_all(&data).expect("a data directory");
        // Debian's redis-tools has the server under another name: it becomes what it is called by.
        let binary = dir.path().join("redis-server");
        let real = find("redis-server").or_else(|| find("redis-check-rdb"));
        let real = real.expect("no Redis to compare with: apt-get install -y redis-tools");
        std::os::unix::fs::symlink(real, &binary).expect("a symlink");
        let port = free_port();
        let mut flags = vec!["--port".to_string(), port.to_string()];
        flags.extend(["--dir".to_string(), data.display().to_string()]);
        flags.extend(more.iter().map(|flag| flag.to_string()));
        Server::start("redis", port, binary, flags, Vec::new(), data, dir)
    }

    fn start(
        name: &str,
        port: u16,
        binary: PathBuf,
        flags: Vec<String>,
        env: Vec<(String, String)>,
        data: PathBuf,
        dir: TempDir,
    ) -> Server {
        let log = dir.path().join("log");
        let name = name.to_string();
        let mut server = Server { name, port, binary, flags, env, child: None, log, data, dir };
        server.restart();
        server
    }

    /// Starts the server again, with the same ports and directory, and waits until it answers.
    pub fn restart(&mut self) {
        self.spawn();
        if let Some(status) = self.wait_until_up() {
            panic!("{} ended at once: {status}\n{}", self.name, self.log());
        }
    }

    /// Starts the server again and does not wait: for servers that have to refuse.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} is running already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let child = Command::new(&self.binary)
            .args(&self.flags)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a log file"))
            .stdout(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.binary.display()));
        guard("add", child.id());
        self.child = Some(child);
    }

    /// Starts the server again; false if it refuses, and ends with code 1.
    pub fn starts(&mut self) -> bool {
        self.spawn();
        let Some(status) = self.wait_until_up() else { return true };
        assert_eq!(status.code(), Some(1), "{}: {status}\n{}", self.name, self.log());
        false
    }

    /// Waits until it answers, or has ended.
    fn wait_until_up(&mut self) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.try_wait() {
                return Some(status);
            }
            let pong = Client::connect(self.port).and_then(|mut client| client.try_call(&["PING"]));
            // One that asks for a password answers, too.
            let answers = |value: &crate::resp::Value| {
                value.text().is_some_and(|text| text == "PONG")
                    || value.error().is_some_and(|why| why.starts_with("NOAUTH"))
            };
            if pong.is_ok_and(|value| answers(&value)) {
                return None;
            }
            if start.elapsed() > PATIENCE {
                panic!("{} does not answer PING\n{}", self.name, self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            guard("remove", child.id());
        }
    }

    /// SIGTERM, and waits for the end, for [`PATIENCE`] at most.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        let start = Instant::now();
        loop {
            if let Some(status) = self.try_wait() {
                return status;
            }
            if start.elapsed() > PATIENCE {
                panic!("{} does not end on SIGTERM\n{}", self.name, self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The exit status, if the process has ended by itself.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let status = child.try_wait().expect("the child's status")?;
        guard("remove", child.id());
        self.child = None;
        Some(status)
    }

    /// Sends a signal by name (`STOP`, `CONT`, `TERM`).
    pub fn signal(&self, name: &str) {
        let (name, pid) = (name.to_string(), self.pid().to_string());
        let kill = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", &name, &pid]).status();
        assert!(kill.expect("a shell").success(), "kill -s {name} {pid}");
    }

    /// Adds a flag that the next start has.
    pub fn add_flag(&mut self, flag: &str, value: &str) {
        self.flags.extend([flag.to_string(), value.to_string()]);
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(self.port)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", self.name, self.log()))
    }

    /// The client port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name that it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process, which has to be running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} is not running", self.name)).id()
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("---- last lines of {}", self.name);
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        self.kill();
    }
}

/// What the guard runs: it keeps a list of processes until the pipe from this program ends.
const GUARD_SCRIPT: &str = "left=' '; while read -r word pid; do case $word in \
    add) left=\"$left$pid \";; remove) left=\"${left%% $pid *} ${left#* $pid }\";; esac; done; \
    for pid in $left; do kill -9 $pid; done";

/// Tells the guard of a process that has to end with this program: to `add` or to `remove` it.
pub fn guard(word: &str, pid: u32) {
    static GUARD: Mutex<Option<ChildStdin>> = Mutex::new(None);
    let mut guard = GUARD.lock().unwrap();
    let pipe = guard.get_or_insert_with(|| {
        let shell = Command::new("sh")
            .args(["-c", GUARD_SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        shell.expect("a shell").stdin.take().expect("its stdin")
    });
    writeln!(pipe, "{word} {pid}").expect("the guard");
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// The file that tells a process's clock, in its directory.
const CLOCK: &str = "clock";

/// What gives a process a clock of its own.
fn libfaketime() -> PathBuf {
    let libraries = fs::read_dir("/usr/lib").expect("/usr/lib").flatten().map(|entry| entry.path());
    libraries
        .map(|library| library.join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())
        .expect("no libfaketime to set a clock with: apt-get install -y libfaketime")
}

/// The server that cargo built with this program. One older than its sources is refused: `cargo test`
/// alone does not build the programs of other packages.
pub fn lattis_server() -> PathBuf {
    if let Some(path) = std::env::var_os("LATTIS_SERVER") {
        return path.into();
    }
    let binary = profile_dir().join("lattis-server");
    let Ok(built) = fs::metadata(&binary).and_then(|data| data.modified()) else {
        panic!("{} is not there: run `make build` first", binary.display());
    };
    for folder in ["engine", "replication", "server"] {
        let newest = newest(&repository().join(folder));
        assert!(newest <= built, "lattis-server is older than {folder}/: run `make build` first");
    }
    binary
}

/// `target/<profile>`, where this program lies, too.
fn profile_dir() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    let dir = program.parent().expect("its folder");
    if dir.ends_with("deps") { dir.parent().expect("its folder").into() } else { dir.into() }
}

fn newest(path: &Path) -> SystemTime {
    let Ok(entries) = fs::read_dir(path) else {
        let data = fs::metadata(path).and_then(|data| data.modified());
        let rust = path.extension().is_some_and(|extension| extension == "rs");
        return if rust { data.unwrap_or(SystemTime::UNIX_EPOCH) } else { SystemTime::UNIX_EPOCH };
    };
    entries
        .flatten()
        .filter(|entry| {
            !["tests", "examples", "benches"].map(Into::into).contains(&entry.file_name())
        })
        .map(|entry| newest(&entry.path()))
        .max()
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written with `appendfsync always` is there after kill -9, on the same port; SIGTERM
    /// ends it; nothing runs afterwards.
    #[test]
    fn a_server_comes_back_and_goes() {
        let mut server = Server::redis(&["--appendonly", "yes", "--appendfsync", "always"]);
        assert!(server.client().words("SET k v").is_ok());
        server.kill();
        assert!(Client::connect(server.port()).is_err());
        server.restart();
        assert_eq!(server.client().words("GET k").text().as_deref(), Some("v"));
        assert!(server.terminate().success());
        server.restart();
        let pid = server.pid();
        assert!(server.log().contains("Ready to accept connections"));
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    /// The guard's list: what was removed is not killed.
    #[test]
    fn the_guard_kills_what_is_left_only() {
        let spawn = || Command::new("sleep").arg("60").spawn().unwrap();
        let (mut left, mut removed) = (spawn(), spawn());
        let (l, r) = (left.id(), removed.id());
        let script = format!("printf 'add {l}\\nadd {r}\\nremove {r}\\n' | {{ {GUARD_SCRIPT}; }}");
        let status = Command::new("sh").args(["-c", &script]).status();
        assert!(status.unwrap().success());
        assert!(!left.wait().unwrap().success());
        assert!(removed.try_wait().unwrap().is_none());
        removed.kill().unwrap();
        removed.wait().unwrap();
    }
}
