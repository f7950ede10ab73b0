//! Replicas that have seen the same commits are equal, whatever the order, the crashes and the state
//! transfers between; and what is kept is at every moment what would be computed anew.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod common;

use common::{World, named};

fn history(seed: u64) {
    let replicas = 2 + (seed % 3) as usize;
    let mut world = World::new(seed, replicas);
    for _ in 0..60 {
        let at = world.rng.below(replicas);
        world.now += world.rng.below(10) as u64;
        match world.rng.below(100) {
            0..50 => world.random_command(at),
            50..80 => drop(world.deliver(at)),
            80..86 => world.expire(at),
            86..90 => world.receive_a_state(at),
            90..93 => {
                world.engine(at).sync().unwrap();
            }
            93..96 => {
                world.crash(at);
                world.forget_lost();
            }
            _ => world.verify(at),
        }
        world.check_digests();
        if std::env::var("PARANOID").is_ok() {
            world.verify(at);
        }
    }
    world.forget_lost();
    world.settle();
    world.pass_all_deadlines();
    world.check_digests();
    let first = world.dump(0);
    for at in 0..replicas {
        world.verify(at);
        assert_eq!(world.dump(at), first, "replica {at}");
    }
}

#[test]
fn replicas_converge() {
    let (from, to) = match std::env::var("SEED") {
        Ok(seed) => (seed.parse().unwrap(), seed.parse::<u64>().unwrap() + 1),
        Err(_) => (0, 3_000),
    };
    for seed in from..to {
        named(format_args!("SEED={seed}"), || history(seed));
    }
}
