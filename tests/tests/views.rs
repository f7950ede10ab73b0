//! Views over much: built in slices while others are served, through a kill, with the sources changing.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use lattis_tests::process::{NodeConfig, PATIENCE, Server};
use lattis_tests::resp::{Client, Value};

const MEMBERS: u64 = 150_000;

fn add(client: &mut Client, members: impl Iterator<Item = u64>) {
    let mut words: Vec<String> = vec!["SADD".into(), "numbers".into()];
    words.extend(members.map(|member| member.to_string()));
    client.call(&words);
}

/// The answer of a view, once it has one; how often it was not complete.
fn complete(client: &mut Client, command: &str) -> (Value, usize) {
    let start = Instant::now();
    let mut waited = 0;
    loop {
        match client.words(command) {
            Value::Error(text) if text.starts_with("LOADING view is being built (") => waited += 1,
            value => return (value, waited),
        }
        assert!(start.elapsed() < PATIENCE, "{command} is still being built");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_view_over_much_is_built_while_others_are_served() {
    let mut server = Server::lattis(&NodeConfig::new("views"));
    let mut client = server.client();
    let mut wanted: BTreeSet<u64> = (0..MEMBERS).collect();
    for from in (0..MEMBERS).step_by(1_000) {
        add(&mut client, from..from + 1_000);
    }
    // One, and what derives from it.
    let ok = Value::Simple("OK".into());
    let bindings = [
        ["MAP.BIND", "doubled", "numbers", "x * 2"],
        ["FILTER.BIND", "even", "doubled", "x % 4 == 0"],
    ];
    for binding in bindings {
        assert_eq!(client.call(&binding), ok);
    }
    let Value::Error(text) = client.words("SCARD even") else { panic!("it is complete") };
    assert!(text.starts_with("LOADING view is being built ("), "{text}");
    assert!(format!("{:?}", client.words("BIND.LIST")).contains("building ("));
    // The source changes meanwhile: what was read, and what is still to be read.
    for number in 0..200 {
        let (gone, new) = (number * 700, MEMBERS + number);
        client.words(&format!("SREM numbers {gone}"));
        client.words(&format!("SADD numbers {new}"));
        wanted.remove(&gone);
        wanted.insert(new);
    }
    server.kill();
    server.restart();
    let mut client = server.client();
    let (doubled, _) = complete(&mut client, "SCARD doubled");
    let (even, _) = complete(&mut client, "SCARD even");
    let evens = wanted.iter().filter(|it| *it % 2 == 0).count() as i64;
    assert_eq!((doubled, even), (Value::Int(wanted.len() as i64), Value::Int(evens)));
    for number in (0..MEMBERS + 200).step_by(97) {
        let is_there = i64::from(wanted.contains(&number));
        let line = format!("SISMEMBER doubled {}", number * 2);
        assert_eq!(client.words(&line), Value::Int(is_there), "{line}");
    }
    // A view that goes, or is another one now, stops nobody either; nor does what takes all of it away.
    assert_eq!(client.call(&["MAP.BIND", "doubled", "numbers", "x + 1"]), ok);
    assert_eq!(complete(&mut client, "SISMEMBER doubled 152").0, Value::Int(1));
    assert_eq!(client.words("DEL numbers"), Value::Int(1));
    assert_eq!(complete(&mut client, "SCARD doubled").0, Value::Int(0));
    assert_eq!(complete(&mut client, "SCARD even").0, Value::Int(0));
}
