//! Dataflow, for every operator in `OPERATORS`: one that is added there is tested here.
//!
//! What is kept is at every moment what would be computed anew; operators are linear over weights; which
//! bindings are active depends on the binding rows alone, the same at every replica; and every refusal
//! says what is wrong and where.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{Rng, World, bytes, named};
use lattis_engine::causal::Millis;
use lattis_engine::dataflow::ops::{OPERATORS, OperatorRecord, operator};
use lattis_engine::dataflow::{Change, Definition};
use lattis_engine::{BindingInfo, OpError, Ttl};

/// Expressions for operators that take one; a map and a filter each find some that fit.
const EXPRESSIONS: [&str; 10] = [
    "x * 2",
    "x + 1",
    "x % 3",
    "'same'",
    "x > 2",
    "x != 3",
    "int(x) > 1",
    "size(string(x)) > 1",
    "x / 0",
    "x",
];

const ELEMENTS: [&str; 8] = ["0", "1", "2", "3", "4", "-7", "1.5", "word"];

fn definition(record: &OperatorRecord, sources: &[&str], rng: &mut Rng) -> Definition {
    let most = (*record.inputs.end()).min(3);
    let least = *record.inputs.start();
    let count = least + rng.below(most + 1 - least);
    let expression = if record.expression { *rng.pick(&EXPRESSIONS) } else { "" };
    Definition {
        operator: record.name.into(),
        sources: (0..count).map(|_| rng.word(sources)).collect(),
        expression: expression.into(),
    }
}

// ---- the law of operators ----------------------------------------------------------------------------

fn summed(changes: &[Change]) -> BTreeMap<Bytes, i64> {
    let mut sums = BTreeMap::new();
    for change in changes {
        *sums.entry(change.element.clone()).or_insert(0) += change.weight;
    }
    sums.retain(|_, weight| *weight != 0);
    sums
}

#[test]
fn operators_are_linear_over_weights() {
    for record in OPERATORS {
        let mut rng = Rng(record.name.len() as u64);
        for _ in 0..1_000 {
            let definition = definition(record, &["s", "t"], &mut rng);
            let operator = (record.build)(&definition).unwrap();
            let step = |changes: &[(usize, Change)]| {
                let mut out = Vec::new();
                for (input, change) in changes {
                    operator.step(*input, change, &mut out);
                }
                summed(&out)
            };
            let mut changes: Vec<(usize, Change)> = (0..rng.below(20))
                .map(|_| {
                    let input = rng.below(definition.sources.len());
                    let weight = rng.below(5) as i64 - 2;
                    (input, Change { element: rng.word(&ELEMENTS), weight })
                })
                .collect();
            let result = step(&changes);
            // In any order.
            for at in (1..changes.len()).rev() {
                changes.swap(at, rng.below(at + 1));
            }
            assert_eq!(step(&changes), result, "{definition:?}");
            // As the sum per element.
            let mut sums: BTreeMap<(usize, Bytes), i64> = BTreeMap::new();
            for (input, change) in &changes {
                *sums.entry((*input, change.element.clone())).or_insert(0) += change.weight;
            }
            let at_once: Vec<(usize, Change)> = sums
                .into_iter()
                .map(|((input, element), weight)| (input, Change { element, weight }))
                .collect();
            assert_eq!(step(&at_once), result, "{definition:?}");
            // And taken back.
            let back = changes.iter().map(|(input, change)| {
                (*input, Change { weight: -change.weight, ..change.clone() })
            });
            let both: Vec<_> = changes.iter().cloned().chain(back).collect();
            assert!(step(&both).is_empty(), "{definition:?}");
        }
    }
}

#[test]
fn operators_are_found_by_their_names_and_say_what_they_take() {
    for record in OPERATORS {
        assert!(std::ptr::eq(operator(record.name).unwrap(), record));
        assert!(std::ptr::eq(operator(&record.name.to_lowercase()).unwrap(), record));
        assert!(*record.inputs.start() > 0);
        let definition = Definition {
            operator: record.name.into(),
            sources: vec![bytes("s"); *record.inputs.start()],
            expression: "x ***".into(),
        };
        assert_eq!((record.build)(&definition).is_err(), record.expression, "{}", record.name);
    }
    assert!(operator("NONE").is_none());
}

// ---- histories ---------------------------------------------------------------------------------------

/// Plain keys that feed, and targets that feed each other: chains, diamonds, cycles.
const SOURCES: [&str; 2] = ["a", "b"];
const TARGETS: [&str; 4] = ["t", "u", "v", "w"];

fn command(world: &mut World, at: usize) {
    let mut rng = Rng(world.rng.next());
    let everything = [&SOURCES[..], &TARGETS[..]].concat();
    let time = Millis(world.now + rng.below(40) as u64);
    world.run(at, |txn| {
        for _ in 0..1 + rng.below(3) {
            let savepoint = txn.savepoint();
            let members = [rng.word(&ELEMENTS), rng.word(&ELEMENTS)];
            let source = rng.pick(&SOURCES).as_bytes();
            let target = rng.pick(&TARGETS).as_bytes();
            let _ = match rng.below(24) {
                0..8 => txn.set_add(0, source, &members).map(drop),
                8..11 => txn.set_remove(0, source, &members).map(drop),
                11 => txn.set(0, source, bytes("1"), Ttl::Keep),
                12 => txn.delete(0, source).map(drop),
                13 => txn.hash_set(0, source, &[(bytes("1"), bytes("2"))]).map(drop),
                14 => txn.expire(0, source, Some(time)).map(drop),
                // Client data where bindings may come, and bindings where client data may be.
                15 | 16 => txn.set_add(0, target, &members).map(drop),
                17 => txn.unbind(0, target).map(drop),
                18 if rng.chance(30) => txn.flush(0),
                _ => {
                    let record = *rng.pick(&OPERATORS);
                    let it = definition(record, &everything, &mut rng);
                    txn.bind(0, target, &it.operator, &it.sources, &it.expression)
                }
            };
            if rng.chance(10) {
                txn.rollback(savepoint);
            }
        }
    });
}

#[derive(Default)]
struct Seen {
    active: usize,
    suspended: usize,
    lost: usize,
}

fn look(world: &mut World, at: usize, seen: &mut Seen) -> Vec<BindingInfo> {
    let mut bindings = world.run(at, |txn| txn.bindings(0));
    for binding in &mut bindings {
        seen.active += usize::from(binding.state.starts_with("active"));
        seen.suspended += usize::from(binding.state.starts_with("suspended: closes a cycle"));
        seen.lost += usize::from(binding.state.starts_with("superseded"));
        // Failures are counted since start, so they differ.
        if binding.state.starts_with("active") {
            binding.state = "active".into();
        }
    }
    bindings
}

fn history(seed: u64, seen: &mut Seen) {
    let replicas = 2 + (seed % 2) as usize;
    let mut world = World::new(seed, replicas);
    for _ in 0..40 {
        let at = world.rng.below(replicas);
        world.now += world.rng.below(6) as u64;
        match world.rng.below(100) {
            0..55 => command(&mut world, at),
            55..85 => drop(world.deliver(at)),
            85..90 => world.expire(at),
            90..95 => world.receive_a_state(at),
            _ => {
                world.engine(at).sync().unwrap();
                world.crash(at);
            }
        }
        world.verify(at);
        look(&mut world, at, seen);
    }
    world.settle();
    world.pass_all_deadlines();
    world.check_digests();
    for at in 0..replicas {
        world.verify(at);
        assert_eq!(world.dump(at), world.dump(0));
        assert_eq!(look(&mut world, at, seen), look(&mut world, 0, seen));
    }
}

#[test]
fn what_is_kept_is_what_would_be_computed_anew() {
    let mut seen = Seen::default();
    for seed in 0..1_500 {
        named(format_args!("seed {seed}"), || history(seed, &mut seen));
    }
    let Seen { active, suspended, lost } = seen;
    println!("{active} active, {suspended} suspended, {lost} superseded");
    assert!(active > 10_000 && suspended > 300 && lost > 300);
}

// ---- cases -------------------------------------------------------------------------------------------

fn pair() -> World {
    let mut world = World::new(1, 2);
    world.replicas.iter_mut().for_each(|replica| replica.skew = 0);
    world
}

fn exchange(world: &mut World) {
    while world.deliver(0) || world.deliver(1) {}
    world.check_digests();
    for at in [0, 1] {
        world.verify(at);
    }
    assert_eq!(world.dump(0), world.dump(1));
    assert_eq!(world.run(0, |txn| txn.bindings(0)), world.run(1, |txn| txn.bindings(0)));
}

fn add(world: &mut World, at: usize, key: &str, members: &[&str]) {
    let members: Vec<Bytes> = members.iter().map(|member| bytes(member)).collect();
    world.run(at, |txn| txn.set_add(0, key.as_bytes(), &members).unwrap());
}

fn try_bind(
    world: &mut World,
    at: usize,
    target: &str,
    words: &[&str],
    expr: &str,
) -> Result<(), OpError> {
    let sources: Vec<Bytes> = words[1..].iter().map(|source| bytes(source)).collect();
    world.run(at, |txn| txn.bind(0, target.as_bytes(), words[0], &sources, expr))
}

fn bind(world: &mut World, at: usize, target: &str, words: &[&str], expr: &str) {
    try_bind(world, at, target, words, expr).unwrap();
}

fn states(world: &mut World) -> Vec<(String, String)> {
    let list = world.run(0, |txn| txn.bindings(0));
    list.into_iter().map(|it| (String::from_utf8(it.target.to_vec()).unwrap(), it.state)).collect()
}

fn state(target: &str, state: &str) -> (String, String) {
    (target.into(), state.into())
}

#[test]
fn of_concurrent_definitions_one_wins_everywhere_and_the_other_is_listed() {
    let mut world = pair();
    add(&mut world, 0, "s", &["1", "2"]);
    exchange(&mut world);
    bind(&mut world, 0, "t", &["MAP", "s"], "x * 10");
    world.now += 1;
    bind(&mut world, 1, "t", &["MAP", "s"], "x * 100");
    exchange(&mut world);
    assert_eq!(world.dump(0), ["set s 1 2", "set t 100 200"]);
    assert_eq!(
        states(&mut world),
        [state("t", "active"), state("t", "superseded: a concurrent definition won"),]
    );
    // A later definition replaces both.
    bind(&mut world, 0, "t", &["FILTER", "s"], "x > 1");
    exchange(&mut world);
    assert_eq!(world.dump(0), ["set s 1 2", "set t 2"]);
    assert_eq!(states(&mut world), [state("t", "active")]);
}

#[test]
fn of_a_concurrent_cycle_the_later_binding_is_suspended_everywhere() {
    let mut world = pair();
    add(&mut world, 0, "s", &["1"]);
    exchange(&mut world);
    bind(&mut world, 0, "t", &["UNION", "u", "s"], "");
    world.now += 1;
    bind(&mut world, 1, "u", &["UNION", "t", "s"], "");
    exchange(&mut world);
    assert_eq!(
        states(&mut world),
        [state("t", "active"), state("u", "suspended: closes a cycle: u -> t -> u"),]
    );
    assert_eq!(world.dump(0), ["set s 1", "set t 1"]);
    // It comes into force when the other goes.
    world.run(0, |txn| txn.unbind(0, b"t").unwrap());
    exchange(&mut world);
    assert_eq!(states(&mut world), [state("u", "active")]);
    assert_eq!(world.dump(1), ["set s 1", "set u 1"]);
}

#[test]
fn client_data_that_a_binding_hides_shows_again_when_it_goes() {
    let mut world = pair();
    add(&mut world, 0, "s", &["1"]);
    exchange(&mut world);
    add(&mut world, 0, "t", &["client"]);
    bind(&mut world, 1, "t", &["MAP", "s"], "x * 10");
    bind(&mut world, 1, "u", &["MAP", "t"], "x");
    exchange(&mut world);
    assert_eq!(world.dump(0), ["set s 1", "set t 10", "set u 10"]);
    assert_eq!(
        world.run(0, |txn| txn.set_add(0, b"t", &[bytes("no")])),
        Err(OpError::Derived("MAP"))
    );
    assert_eq!(world.run(0, |txn| txn.delete(0, b"t")), Err(OpError::Derived("MAP")));
    world.run(0, |txn| txn.unbind(0, b"t").unwrap());
    exchange(&mut world);
    assert_eq!(world.dump(0), ["set s 1", "set t client", "set u client"]);
    // A key of another type gives way in the same manner.
    world.run(0, |txn| txn.unbind(0, b"u").unwrap());
    exchange(&mut world);
    world.run(0, |txn| txn.set(0, b"u", bytes("text"), Ttl::Clear).unwrap());
    bind(&mut world, 1, "u", &["MAP", "t"], "x");
    exchange(&mut world);
    assert_eq!(world.dump(0), ["set s 1", "set t client", "set u client"]);
    world.run(1, |txn| txn.unbind(0, b"u").unwrap());
    exchange(&mut world);
    assert_eq!(world.dump(0), ["set s 1", "set t client", "string u text"]);
}

#[test]
fn a_diamond_counts_both_ways_and_a_flush_takes_the_bindings_it_saw() {
    let mut world = pair();
    add(&mut world, 0, "s", &["1", "2", "3"]);
    bind(&mut world, 0, "left", &["FILTER", "s"], "x < 3");
    bind(&mut world, 0, "right", &["FILTER", "s"], "x > 1");
    bind(&mut world, 0, "both", &["UNION", "left", "right"], "");
    exchange(&mut world);
    world.run(1, |txn| txn.set_remove(0, b"s", &[bytes("2")]).unwrap());
    world.run(0, |txn| txn.set_remove(0, b"s", &[bytes("2")]).unwrap());
    exchange(&mut world);
    assert_eq!(world.dump(0), ["set both 1 3", "set left 1", "set right 3", "set s 1 3"]);
    // DEL of a source leaves the bindings, FLUSH does not; what it did not see stays.
    world.run(0, |txn| txn.delete(0, b"s").unwrap());
    assert_eq!(states(&mut world).len(), 3);
    bind(&mut world, 1, "late", &["MAP", "s"], "x");
    world.run(0, |txn| txn.flush(0).unwrap());
    exchange(&mut world);
    assert_eq!(states(&mut world), [state("late", "active")]);
}

#[test]
fn two_elements_that_become_one_stay_until_both_are_gone() {
    let mut world = pair();
    add(&mut world, 0, "s", &["1", "2"]);
    bind(&mut world, 0, "t", &["MAP", "s"], "'same'");
    world.run(0, |txn| txn.set_remove(0, b"s", &[bytes("1")]).unwrap());
    assert_eq!(world.dump(0), ["set s 2", "set t same"]);
    world.run(0, |txn| txn.set_remove(0, b"s", &[bytes("2")]).unwrap());
    assert_eq!(world.dump(0), Vec::<String>::new());
    // One source named twice weighs twice.
    bind(&mut world, 0, "u", &["UNION", "s", "s"], "");
    add(&mut world, 0, "s", &["1"]);
    assert_eq!(world.dump(0), ["set s 1", "set t same", "set u 1"]);
    exchange(&mut world);
}

#[test]
fn elements_that_cannot_be_evaluated_are_left_out_and_counted() {
    let mut world = pair();
    bind(&mut world, 0, "t", &["MAP", "s"], "10 / x");
    add(&mut world, 0, "s", &["0", "2", "5", "word"]);
    assert_eq!(world.dump(0), ["set s 0 2 5 word", "set t 2 5"]);
    assert_eq!(states(&mut world), [state("t", "active, 2 evaluations failed")]);
}

#[test]
fn refusals_say_what_is_wrong_and_where() {
    let mut world = pair();
    let mut refused = |target: &str, words: &[&str], expr: &str| {
        let vector = world.engine(0).vector().clone();
        let error = try_bind(&mut world, 0, target, words, expr).unwrap_err();
        assert_eq!(world.engine(0).vector(), &vector);
        error.to_string()
    };
    assert_eq!(refused("t", &["REDUCE", "s"], ""), "unknown operator REDUCE");
    assert_eq!(refused("t", &["MAP", "s", "u"], "x"), "wrong number of sources for MAP");
    assert_eq!(refused("t", &["union", "s"], ""), "wrong number of sources for UNION");
    assert_eq!(refused("t", &["MAP", "t"], "x"), "the binding closes a cycle: t -> t");
    assert_eq!(
        refused("t", &["MAP", "s"], "x +\ny"),
        "line 2, column 1: unknown variable 'y': only x is defined"
    );
    assert!(refused("t", &["FILTER", "s"], "x > > 1").starts_with("line 1, column "));
    bind(&mut world, 0, "u", &["MAP", "t"], "x");
    bind(&mut world, 0, "v", &["UNION", "s", "u"], "");
    let cycle = try_bind(&mut world, 0, "t", &["MAP", "v"], "x").unwrap_err();
    assert_eq!(cycle.to_string(), "the binding closes a cycle: t -> u -> v -> t");
    add(&mut world, 0, "data", &["1"]);
    assert_eq!(try_bind(&mut world, 0, "data", &["MAP", "s"], "x"), Err(OpError::Busy));
    world.run(0, |txn| txn.set(0, b"data", bytes("1"), Ttl::Clear).unwrap());
    assert_eq!(try_bind(&mut world, 0, "data", &["MAP", "s"], "x"), Err(OpError::Busy));
    // Redefinition of a target is no conflict with its own elements.
    add(&mut world, 0, "s", &["1"]);
    bind(&mut world, 0, "v", &["MAP", "s"], "x + 1");
    assert_eq!(world.dump(0), ["string data 1", "set s 1", "set v 2"]);
    assert!(!world.run(0, |txn| txn.unbind(0, b"none").unwrap()));
}
