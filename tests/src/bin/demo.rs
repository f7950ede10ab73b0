//! Three nodes, a partition, one state again: a tour of two seconds that checks what it shows.
//!
//! Prints commands and replies as redis-cli would, with the node they went to. Fails where a reply is
//! not what docs/semantics.md promises.

use lattis_tests::cluster::Cluster;
use lattis_tests::process::server_is_written;
use lattis_tests::resp::{Client, Value};

const NAMES: [&str; 3] = ["amsterdam", "boston", "canberra"];

struct Tour {
    cluster: Cluster,
    clients: Vec<Client>,
}

impl Tour {
    /// Runs a command on a node and shows it.
    fn run(&mut self, node: usize, words: &[&str]) -> Value {
        let reply = self.clients[node].call(words);
        show(node, &words.join(" "), &reply);
        assert!(reply.error().is_none(), "{reply:?}");
        reply
    }

    /// Waits until a node answers so, and shows it.
    fn see(&mut self, node: usize, line: &str, want: &str) {
        let reply = self.cluster.wait_for(node, line, |reply| plain(reply) == want);
        show(node, line, &reply);
    }
}

fn show(node: usize, line: &str, reply: &Value) {
    println!("  {:>9}> {line:<34} {reply:?}", NAMES[node]);
}

/// A reply as one word or more; unordered elements sorted.
fn plain(reply: &Value) -> String {
    match reply {
        Value::Int(number) => number.to_string(),
        Value::Null => "nil".to_string(),
        _ => reply.text().unwrap_or_else(|| reply.sorted_texts().join(" ")),
    }
}

fn main() {
    if !server_is_written() {
        println!("demo: no server in this checkout yet");
        return;
    }
    println!("Three nodes that any Redis client can talk to, each with its peers:");
    let cluster = Cluster::start(&NAMES, |_| {});
    let clients = cluster.nodes.iter().map(|node| node.client()).collect();
    let mut tour = Tour { cluster, clients };
    let (a, b, c) = (0, 1, 2);
    tour.run(a, &["SADD", "cart", "apples", "pears"]);
    tour.run(b, &["INCRBY", "visits", "5"]);
    tour.see(c, "SMEMBERS cart", "apples pears");
    tour.see(c, "GET visits", "5");
    tour.see(a, "GET visits", "5");

    println!(
        "\nA derived set: it follows its source, on every node, and costs nothing on the wire."
    );
    tour.run(a, &["SADD", "numbers", "1", "2"]);
    tour.run(a, &["MAP.BIND", "doubled", "numbers", "x * 2"]);
    tour.see(c, "SMEMBERS doubled", "2 4");

    println!("\ncanberra is cut off. Both sides go on writing.");
    tour.cluster.isolate(c);
    tour.run(a, &["SREM", "cart", "pears"]);
    tour.run(c, &["SADD", "cart", "pears", "plums"]);
    tour.run(a, &["INCR", "visits"]);
    tour.run(c, &["INCRBY", "visits", "10"]);
    tour.run(c, &["SADD", "numbers", "50"]);
    tour.see(b, "SMEMBERS cart", "apples");
    tour.see(b, "GET visits", "6");
    tour.see(c, "GET visits", "15");

    println!("\nboston is killed (kill -9) and started again: what it had acknowledged is there.");
    tour.cluster.nodes[b].kill();
    tour.cluster.nodes[b].restart();
    tour.clients[b] = tour.cluster.nodes[b].client();
    tour.see(b, "GET visits", "6");

    println!("\nThe partition heals: additions win over concurrent removals, increments add up.");
    tour.cluster.heal();
    for node in [a, b, c] {
        tour.see(node, "SMEMBERS cart", "apples pears plums");
        tour.see(node, "GET visits", "16");
        tour.see(node, "SMEMBERS doubled", "100 2 4");
    }
    let digest = plain(&tour.run(a, &["DIGEST.CRDT"]));
    for node in [b, c] {
        tour.see(node, "DIGEST.CRDT", &digest);
    }
    println!("\ndemo: three nodes, one state");
}
