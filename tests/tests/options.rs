//! How a node is started and reached: files of directives, the command line, passwords, sockets, addresses.
//! Where Redis does the same it is asked, too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lattis_tests::process::{NodeConfig, Server, TempDir, free_port, lattis_server, wait};
use lattis_tests::resp::{Client, Value};

/// What a command line gives that does not run a node.
fn told(arguments: &[&str]) -> Output {
    Command::new(lattis_server()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The one line with which a start is refused.
fn refused(arguments: &[&str]) -> String {
    let output = told(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn node(name: &str, more: &[&str]) -> Server {
    let mut config = NodeConfig::new(name);
    config.more.extend(more.iter().map(|word| word.to_string()));
    Server::lattis(&config)
}

// ---- files and flags

#[test]
fn a_file_in_the_form_of_redis_conf() {
    let dir = TempDir::new("file");
    let port = free_port();
    let file = dir.path().join("lattis.conf");
    let text = format!(
        "# a node\nport 1\nbind 127.0.0.1 -::1\nrequirepass \"two words\\x21\"\n\nsave 900 1\n\
         save 300 10\nappendonly no\nhz 10\nnode-name 'eu'\ndir {}\npeer-port {}\npidfile {}\n",
        dir.path().join("data").display(),
        free_port(),
        dir.path().join("pid").display(),
    );
    fs::write(&file, text).unwrap();
    let mut child = Command::new(lattis_server())
        .arg(&file)
        // What follows the file has the last word.
        .args(["--port", &port.to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait("the node", || Client::connect(port).is_ok());
    let mut client = Client::connect(port).unwrap();
    assert_eq!(client.words("PING").error(), Some("NOAUTH Authentication required."));
    assert!(client.call(&["AUTH", "two words!"]).is_ok());
    assert!(client.words("INFO server").text().unwrap().contains("node_name:eu"));
    let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
    assert_eq!(pid.trim(), child.id().to_string());
    let _ = client.try_call(&["SHUTDOWN"]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let line = log.lines().find(|line| line.contains("passed over")).unwrap();
    assert!(line.ends_with("passed over: save, appendonly, hz"), "{line}");
    assert!(!dir.path().join("pid").exists());
}

#[test]
fn a_bad_file_is_refused_with_its_line() {
    let dir = TempDir::new("bad");
    let file = dir.path().join("lattis.conf");
    let path = file.to_str().unwrap();
    for (text, why) in [
        ("port 7001\nprot 7002", "line 2: 'prot 7002': Bad directive or wrong number of arguments"),
        ("port 7001\n\n  nonsense", "line 3: 'nonsense': Bad directive"),
        ("port abc", "line 1: 'port abc': argument couldn't be parsed into an integer"),
        ("port", "line 1: 'port': Bad directive or wrong number of arguments"),
        ("dir \"a", "line 1: 'dir \"a': Unbalanced quotes in configuration line"),
        ("maxmemory 100mb", "line 1: 'maxmemory 100mb': nothing is evicted yet"),
        ("replicaof 10.0.0.1 6379", "every node takes writes"),
    ] {
        fs::write(&file, text).unwrap();
        let refusal = refused(&[path]);
        assert!(refusal.contains(why), "{text}: {refusal}");
    }
    assert!(refused(&["/nowhere.conf"]).contains("can't open config file '/nowhere.conf'"));
    assert!(refused(&["--prot", "1"]).contains("did you mean --port?"));
    assert!(refused(&["--port"]).contains("--port needs a value"));
}

#[test]
fn help_and_version_anywhere() {
    for arguments in [&["--port", "1", "--help"][..], &["-h"], &["x.conf", "--help"]] {
        let output = told(arguments);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("--requirepass") && text.contains("--check"), "{text}");
        assert!(!text.contains("--maxmemory"), "{text}");
    }
    for arguments in [&["--version"][..], &["--port", "1", "-v"]] {
        let text = String::from_utf8(told(arguments).stdout).unwrap();
        assert!(text.starts_with("lattis-server "), "{text}");
    }
}

// ---- starts that fail

#[test]
fn a_start_that_fails_takes_nothing() {
    let dir = TempDir::new("taken");
    let data = dir.path().join("data").display().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    let free = free_port().to_string();
    for round in 0..20 {
        let (port, peers) = if round % 2 == 0 { (&free, &taken) } else { (&taken, &free) };
        let why = refused(&["--port", port, "--peer-port", peers, "--dir", &data]);
        assert!(why.contains("cannot listen on"), "{why}");
        assert!(!Path::new(&data).exists(), "the directory was made");
    }
    let (port, peers) = (free_port().to_string(), free_port().to_string());
    let pidfile = ["--pidfile", "/nowhere/pid", "--port", &port, "--peer-port", &peers];
    assert!(refused(&[&pidfile[..], &["--dir", &data]].concat()).contains("pidfile /nowhere/pid"));
    assert!(!Path::new(&data).exists(), "the directory was made");
    let server = node("taken", &["--dir", &data]);
    let info = server.client().words("INFO server").text().unwrap();
    assert!(info.contains("\nincarnation:1\r"), "{info}");
}

#[test]
fn the_backlog_is_what_the_option_says() {
    let server = node("backlog", &["--tcp-backlog", "97"]);
    let mut client = server.client();
    assert_eq!(client.words("CONFIG GET tcp-backlog").sorted_texts(), ["97", "tcp-backlog"]);
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    assert!(table.contains(&format!("0100007F:{:04X}", server.port())), "it listens");
    // Many come at once while nobody is served.
    server.signal("STOP");
    let start = Instant::now();
    let many: Vec<TcpStream> =
        (0..90).map(|_| TcpStream::connect(("127.0.0.1", server.port())).unwrap()).collect();
    server.signal("CONT");
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    assert_eq!(many.len(), 90);
}

// ---- passwords

/// Replies of commands on one new connection.
fn replies(port: u16, lines: &[&[&str]]) -> Vec<Value> {
    let mut client = Client::connect(port).unwrap();
    let reply = |line: &&[&str]| {
        let mut value = client.call(line);
        // Of HELLO what differs is the product.
        if line[0] == "HELLO" && value.error().is_none() {
            value = Value::Simple("hello".into());
        }
        value
    };
    lines.iter().map(reply).collect()
}

#[test]
fn passwords_as_in_redis() {
    let ours = node("password", &["--requirepass", "secret"]);
    let theirs = Server::redis(&["--requirepass", "secret"]);
    let conversations: &[&[&[&str]]] = &[
        &[&["PING"], &["GET", "k"], &["NOSUCH"], &["GET"], &["MULTI"], &["EXEC"]],
        &[&["AUTH", "wrong"], &["PING"], &["AUTH", "secret"], &["SET", "k", "v"], &["GET", "k"]],
        &[&["AUTH", "default", "secret"], &["PING"], &["RESET"], &["PING"]],
        &[&["AUTH", "nobody", "secret"], &["AUTH"], &["AUTH", "a", "b", "c"], &["PING"]],
        &[&["HELLO"], &["HELLO", "3"], &["HELLO", "4"], &["PING"]],
        &[&["HELLO", "3", "AUTH", "default", "wrong"], &["PING"]],
        &[&["HELLO", "3", "AUTH", "default", "secret"], &["PING"]],
        &[&["HELLO", "2", "AUTH", "default", "secret", "SETNAME", "me"], &["CLIENT", "GETNAME"]],
        &[&["AUTH", "secret"], &["CONFIG", "SET", "requirepass", ""], &["AUTH", "x"], &["PING"]],
        &[&["PING"], &["AUTH", "x"], &["AUTH", "default", "x"]],
        &[&["CONFIG", "SET", "requirepass", "secret"], &["PING"]],
        &[&["PING"]],
        &[&["QUIT"]],
    ];
    for conversation in conversations {
        let [ours, theirs] = [ours.port(), theirs.port()].map(|port| replies(port, conversation));
        assert_eq!(ours, theirs, "{conversation:?}");
    }
    // Strangers may send only little.
    for port in [ours.port(), theirs.port()] {
        for request in ["*11\r\n", "*2\r\n$16385\r\n"] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(text.contains("unauthenticated"), "{text}");
        }
    }
}

#[test]
fn a_password_from_the_environment() {
    let mut config = NodeConfig::new("environment");
    config.env.push(("LATTIS_PASSWORD".into(), "secret".into()));
    let server = Server::lattis(&config);
    let mut client = server.client();
    assert!(client.words("PING").error().is_some());
    assert!(client.words("AUTH secret").is_ok());
}

// ---- who may connect

/// An address of this machine that is not loopback, in a network of its own.
#[test]
fn clients_from_elsewhere_need_a_password() {
    let add = |words: &[&str]| {
        Command::new("ip").args(words).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    };
    let (inner, outer) = ("lattis-a", "lattis-b");
    let _ = add(&["link", "del", outer]);
    let made = add(&["link", "add", outer, "type", "dummy"])
        && add(&["addr", "add", "10.213.7.1/32", "dev", outer])
        && add(&["link", "set", outer, "up"]);
    if !made {
        println!("no network can be made here ({inner}): not tested");
        return;
    }
    let server = node("elsewhere", &["--bind", "0.0.0.0"]);
    let redis = Server::redis(&["--bind", "0.0.0.0"]);
    let denied = |port: u16| {
        let mut stream = TcpStream::connect(("10.213.7.1", port)).unwrap();
        let mut text = String::new();
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = stream.read_to_string(&mut text);
        text
    };
    let text = denied(server.port());
    assert!(text.starts_with("-DENIED "), "{text}");
    assert_eq!(text, denied(redis.port()));
    assert!(server.client().words("CONFIG SET requirepass secret").is_ok());
    let mut stream = TcpStream::connect(("10.213.7.1", server.port())).unwrap();
    stream.write_all(b"AUTH secret\r\nPING\r\n").unwrap();
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+OK\r\n+PONG\r\n");
    let _ = add(&["link", "del", outer]);
}

#[test]
fn a_socket_in_the_file_system() {
    let dir = TempDir::new("socket");
    let path = dir.path().join("lattis.sock");
    let mut config = NodeConfig::new("socket");
    let shown = path.display().to_string();
    config.more = ["--unixsocket", &shown, "--unixsocketperm", "700"].map(Into::into).into();
    let mut server = Server::lattis(&config);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"SET k v\r\nGET k\r\nCLIENT LIST\r\n").unwrap();
    let mut text = vec![0; 4096];
    wait("the replies", || {
        let mut client = server.client();
        client.words("GET k").text().as_deref() == Some("v")
    });
    let read = stream.read(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..read]).into_owned();
    assert!(text.starts_with("+OK\r\n$1\r\nv\r\n"), "{text}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    // One that was left by a kill is no hindrance; what is no socket is.
    server.kill();
    assert!(path.exists());
    server.restart();
    assert!(server.terminate().success());
    assert!(!path.exists());
    fs::write(&path, "mine").unwrap();
    let (port, peers) = (free_port().to_string(), free_port().to_string());
    let why = refused(&["--unixsocket", &shown, "--port", &port, "--peer-port", &peers]);
    assert!(why.contains("it is no socket"), "{why}");
    assert!(refused(&["--port", "0", "--peer-port", &peers]).contains("nobody could connect"));
}

#[test]
fn debug_is_for_those_who_allow_it() {
    let server = node("debug", &[]);
    let redis = Server::redis(&[]);
    for line in ["DEBUG SLEEP 0", "DEBUG HELP", "DEBUG NOSUCH"] {
        let (ours, theirs) = (server.client().words(line), redis.client().words(line));
        assert_eq!(ours, theirs, "{line}");
    }
    for allowed in ["yes", "local"] {
        let server = node("debug", &["--enable-debug-command", allowed]);
        assert!(server.client().words("DEBUG SLEEP 0").is_ok());
        assert!(server.client().words("DEBUG HELP").items().is_some());
    }
}

// ---- addresses of version 6

#[test]
fn peers_by_addresses_of_version_6() {
    let mut configs = [NodeConfig::new("one"), NodeConfig::new("two"), NodeConfig::new("three")];
    for config in &mut configs {
        config.more.extend(["--peer-bind".into(), "::1".into()]);
    }
    configs[1].peers = vec![format!("[::1]:{}", configs[0].peer_port)];
    configs[2].more.extend(["--peer-announce".into(), "[::1]".into()]);
    let nodes = configs.each_ref().map(Server::lattis);
    let mut clients = nodes.each_ref().map(Server::client);
    let meet = format!("PEER.MEET ::1 {}", configs[0].peer_port);
    assert!(clients[2].words(&meet).is_ok());
    for (at, client) in clients.iter_mut().enumerate() {
        assert!(client.words(&format!("SADD s {at}")).int() == Some(1));
    }
    for client in &mut clients {
        wait("all members", || client.words("SCARD s").int() == Some(3));
    }
    let peers = clients[0].words("PEER.LIST");
    let addresses: Vec<String> =
        peers.items().unwrap().iter().map(|it| it.items().unwrap()[1].text().unwrap()).collect();
    assert_eq!(addresses.len(), 2);
    assert!(addresses.iter().all(|address| address.starts_with("[::1]:")), "{addresses:?}");
}
