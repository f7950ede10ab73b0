//! Clients that people use, with their default settings: redis-py, node-redis and redis-cli.
//!
//! The libraries come from their registries by name, into the target folder. Where a registry cannot be
//! reached the test fails, and is skipped only if `LATTIS_OFFLINE=1` says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lattis_tests::process::{NodeConfig, Server, repository};

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Runs a program to its end. The text, and whether it went well.
fn run(command: &mut Command) -> Result<String, String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(text(&output)),
        Ok(output) => Err(text(&output)),
        Err(error) => Err(error.to_string()),
    }
}

/// Where libraries are installed: beside this program.
fn libraries(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    let folder = program.parent().expect("its folder").join("client-libraries").join(name);
    fs::create_dir_all(&folder).expect("a folder for libraries");
    folder
}

/// Whether to go on: an installation that has failed is a failure, unless it may.
fn installed(name: &str, result: Result<String, String>) -> bool {
    match result {
        Ok(_) => true,
        Err(why) if std::env::var("LATTIS_OFFLINE").is_ok_and(|value| value == "1") => {
            println!("SKIPPED: {name}: it cannot be installed: {why}");
            false
        }
        Err(why) => panic!("{name} cannot be installed (LATTIS_OFFLINE=1 skips this test): {why}"),
    }
}

fn script(name: &str) -> PathBuf {
    repository().join("tests/tests/clients").join(name)
}

/// Runs a script against a server, for a minute at most.
fn serve(program: &Path, script: &Path, server: &Server) {
    let port = server.port().to_string();
    let result = run(Command::new("timeout").arg("60").arg(program).arg(script).arg(port));
    println!("{}", result.unwrap_or_else(|why| panic!("{why}\n{}", server.log())).trim());
}

#[test]
fn redis_py() {
    let folder = libraries("python");
    let python = folder.join("bin/python");
    let ready = || run(Command::new(&python).args(["-c", "import redis"]));
    let install = || -> Result<String, String> {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(&python).args(["-m", "pip", "install", "-q", "redis"]))
    };
    if installed("redis-py", ready().or_else(|_| install())) {
        let server = Server::lattis(&NodeConfig::new("python"));
        serve(&python, &script("smoke.py"), &server);
    }
}

#[test]
fn node_redis() {
    let folder = libraries("node");
    let there = |folder: &Path| folder.join("node_modules/redis/package.json").is_file();
    let install = || match there(&folder) {
        true => Ok(String::new()),
        false => run(Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(&folder)
            .arg("redis")),
    };
    if installed("node-redis", install()) {
        // A module is looked for beside the script that asks for it.
        let copy = folder.join("smoke.mjs");
        fs::copy(script("smoke.mjs"), &copy).expect("a copy of the script");
        let server = Server::lattis(&NodeConfig::new("node"));
        serve(Path::new("node"), &copy, &server);
    }
}

/// redis-cli in both protocols; its help, which comes from COMMAND DOCS; its scans of the whole keyspace.
#[test]
fn redis_cli() {
    let server = Server::lattis(&NodeConfig::new("cli"));
    let port = server.port().to_string();
    let cli = |args: &[&str]| {
        let result = run(Command::new("redis-cli").args(["-p", &port]).args(args));
        result.unwrap_or_else(|why| panic!("redis-cli {args:?}: {why}"))
    };
    assert_eq!(cli(&["SET", "k", "v"]), "OK\n");
    assert_eq!(cli(&["-3", "GET", "k"]), "v\n");
    assert_eq!(cli(&["HSET", "h", "f", "1", "g", "2"]), "2\n");
    assert_eq!(cli(&["SADD", "s", "a", "b", "c"]), "3\n");
    let hash = cli(&["-3", "--no-raw", "HGETALL", "h"]);
    assert!(hash.contains("1# \"f\" => \"1\"") && hash.contains("2# \"g\" => \"2\""), "{hash}");
    assert_eq!(cli(&["-3", "--no-raw", "SISMEMBER", "s", "a"]), "(integer) 1\n");
    let docs = cli(&["COMMAND", "DOCS"]);
    for word in ["summary", "sadd.crdt", "map.bind", "complexity"] {
        assert!(docs.contains(word), "COMMAND DOCS without {word}");
    }
    let docs = cli(&["-3", "--json", "COMMAND", "DOCS", "get", "map.bind"]);
    assert!(docs.starts_with("{\"get\":{\"summary\":"), "{docs}");
    assert!(docs.contains("\"map.bind\":{"), "{docs}");
    let mut keys: Vec<String> = cli(&["--scan"]).lines().map(str::to_string).collect();
    keys.sort();
    assert_eq!(keys, ["h", "k", "s"]);
    let big = cli(&["--bigkeys"]);
    assert!(big.contains("1 sets with 3 members"), "{big}");
    assert!(big.contains("1 strings with 1 bytes"), "{big}");
    let info = cli(&["INFO"]);
    assert!(info.contains("redis_version:") && info.contains("db0:keys=3"), "{info}");
    assert!(cli(&["-r", "3", "INCR", "n"]).ends_with("3\n"));
    let error = cli(&["INCR", "s"]);
    assert!(error.starts_with("WRONGTYPE"), "{error}");
    let help = cli(&["help", "map.bind"]);
    assert!(help.contains("MAP.BIND") || help.contains("map.bind"), "{help}");
}

/// What redis-cli shows while a person types comes from COMMAND DOCS too.
#[test]
fn redis_cli_shows_hints() {
    let server = Server::lattis(&NodeConfig::new("hints"));
    serve(Path::new("python3"), &script("hints.py"), &server);
}
