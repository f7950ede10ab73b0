//! Real nodes over slow links and links that are cut: what is written arrives, once, in a time that follows
//! from the rate, and a state transfer ends.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::thread;
use std::time::{Duration, Instant};

use lattis_tests::cluster::{Cluster, Link};
use lattis_tests::process::{NodeConfig, PATIENCE, Server};
use lattis_tests::resp::{Client, Value};

/// Two nodes, of which the second dials the first by a link and is not dialled.
fn pair(adjust: impl Fn(&mut NodeConfig)) -> (Server, Server, Link) {
    let mut configs = [NodeConfig::new("near"), NodeConfig::new("far")];
    let link = Link::to(configs[0].peer_port);
    configs[1].peers.push(link.address());
    configs.iter_mut().for_each(adjust);
    let [near, far] = configs;
    (Server::lattis(&near), Server::lattis(&far), link)
}

fn wait(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < patience, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

fn connected(client: &mut Client) {
    let active = |it: &Value| {
        it.items().is_some_and(|it| it.get(2).and_then(Value::text).as_deref() == Some("active"))
    };
    wait("the peer", PATIENCE, || {
        client.words("PEER.LIST").items().is_some_and(|peers| peers.iter().any(active))
    });
}

/// A value that takes longer on its link than a link may be silent arrives once, and so does what is written
/// behind it.
#[test]
fn a_big_value_over_a_slow_link() {
    let (near, far, link) = pair(|_| {});
    let (mut near, mut far) = (near.client(), far.client());
    connected(&mut near);
    link.rate(500_000);
    let before = link.bytes();
    let value = "x".repeat(4_500_000);
    assert!(near.call(&["SET", "big", &value]).is_ok());
    assert!(near.words("SET after 1").is_ok());
    wait("the value", Duration::from_secs(60), || {
        far.words("GET after").text().as_deref() == Some("1")
    });
    assert_eq!(far.words("STRLEN big"), Value::Int(4_500_000));
    let bytes = link.bytes() - before;
    assert!(bytes < 5_500_000, "{bytes} bytes for a value of 4,500,000");
}

/// A whole state over a slow link that is cut now and then, while writes go on and the log is over its limit,
/// arrives: it goes on where it was, and what is behind it is kept.
#[test]
fn a_state_over_a_link_that_is_cut_under_writes() {
    let (near, far, link) = pair(|config| config.log_max_bytes = Some(100_000));
    let (mut near, mut far) = (near.client(), far.client());
    connected(&mut near);
    let fill = "y".repeat(500);
    link.cut();
    for number in 0..4000 {
        assert!(near.call(&["SET", &format!("k{number}"), &fill]).is_ok());
    }
    link.rate(400_000);
    link.open();
    let before = link.bytes();
    let mut round = 0;
    // The state is about 2.2 MB: more than comes through between two cuts.
    wait("the state", Duration::from_secs(60), || {
        round += 1;
        for number in 0..20 {
            assert!(near.call(&["SET", &format!("hot{number}"), &fill]).is_ok());
        }
        if round % 150 == 0 {
            link.cut();
            thread::sleep(Duration::from_millis(50));
            link.open();
        }
        far.words("DBSIZE") == near.words("DBSIZE")
    });
    link.rate(0);
    wait("equal digests", PATIENCE, || far.words("DIGEST.CRDT") == near.words("DIGEST.CRDT"));
    let bytes = link.bytes() - before;
    assert!(bytes < 12_000_000, "{bytes} bytes for a state of about 2,200,000");
}

/// A cluster goes on while one of its nodes hangs behind a very slow link, and that node lives, too.
#[test]
fn a_slow_node_holds_nobody_up() {
    let cluster = Cluster::start(&["one", "two", "slow"], |_| {});
    for node in 0..3 {
        cluster.wait_for(node, "PEER.LIST", |reply| {
            let active = |it: &&Value| {
                it.items().is_some_and(|it| it[2].text().as_deref() == Some("active"))
            };
            reply.items().is_some_and(|peers| peers.iter().filter(active).count() == 2)
        });
    }
    cluster.links(2).for_each(|link| link.rate(50_000));
    let mut one = cluster.nodes[0].client();
    let value = "z".repeat(400_000);
    assert!(one.call(&["SET", "big", &value]).is_ok());
    for number in 0..50 {
        assert!(one.call(&["SET", "n", &number.to_string()]).is_ok());
    }
    cluster.wait_for(1, "GET n", |reply| reply.text().as_deref() == Some("49"));
    // 400 kB take 8 s there.
    cluster.wait_for(2, "GET n", |reply| reply.text().as_deref() == Some("49"));
}
