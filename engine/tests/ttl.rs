//! Time to live (MODEL M7) on the real engine, with clocks that disagree.
//!
//! One key, one deadline, writes before, around and after it, delivered in any causal order. At every
//! moment and at every node: what was written after the deadline, by its writer's wall clock, is there, and
//! what was written at it or before is not, once it has passed by that node's wall clock. Only a write that
//! knew nothing of the deadline may outlive it, when it meets nothing but the removal. Then the conflicts
//! of SEMANTICS R5, one by one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

mod common;

use bytes::Bytes;
use common::{World, bytes, named};
use lattis_engine::Ttl;
use lattis_engine::causal::{Dot, Millis, Stamp, VersionVector};
use lattis_engine::commit::Commit;

const FIELDS: [&str; 4] = ["f0", "f1", "f2", "f3"];

struct Write {
    field: &'static str,
    value: Bytes,
    dot: Dot,
    stamp: Stamp,
    causes: VersionVector,
}

struct Execution {
    world: World,
    writes: Vec<Write>,
    /// The decision, what its issuer had seen, and its time.
    decided: Dot,
    decided_after: VersionVector,
    end: Millis,
    /// Checks that were about something: late writes seen, hidden fields, survivors of the removal.
    late: u64,
    hidden: u64,
    free: u64,
    /// New lives that were taken, seen.
    lost: u64,
}

impl Execution {
    fn new(seed: u64, skew: usize) -> Execution {
        let mut world = World::new(seed, 2 + (seed % 2) as usize);
        for at in 0..world.replicas.len() {
            world.replicas[at].skew = world.rng.below(2 * skew + 1) as u64;
        }
        let end = Millis(world.now + skew as u64 + 40);
        let mut execution = Execution {
            world,
            writes: Vec::new(),
            decided: Dot::default(),
            decided_after: VersionVector::new(),
            end,
            late: 0,
            hidden: 0,
            free: 0,
            lost: 0,
        };
        execution.write(0, "f0");
        for at in 1..execution.world.replicas.len() {
            assert!(execution.world.deliver(at));
        }
        let world = &mut execution.world;
        assert!(world.run(0, |txn| txn.expire(0, b"k", Some(end)).unwrap()));
        let delivered = world.commits.last().unwrap();
        execution.decided = delivered.commit.first_dot();
        execution.decided_after = delivered.causes.clone();
        for at in 1..world.replicas.len() {
            if world.rng.chance(80) {
                world.deliver(at);
            }
        }
        execution
    }

    fn write(&mut self, at: usize, field: &'static str) {
        let value = bytes(&format!("{}", self.writes.len()));
        let pair = [(bytes(field), value.clone())];
        self.world.run(at, |txn| txn.hash_set(0, b"k", &pair).unwrap());
        let delivered = self.world.commits.last().unwrap();
        let commit = Commit::decode(&delivered.commit).unwrap();
        let dot = Dot { origin: commit.origin, seq: commit.last() };
        let causes = delivered.causes.clone();
        self.writes.push(Write { field, value, dot, stamp: commit.stamp(), causes });
    }

    /// Whether a write belongs to a new life: by its writer's clock, or since the writer, whose clock was
    /// slow, had seen the end of the old one.
    fn is_late(&self, write: &Write) -> bool {
        let ended = self.world.commits.iter().any(|it| {
            let last = Dot { origin: it.commit.origin, seq: it.commit.last };
            let commit = Commit::decode(&it.commit).unwrap();
            commit.stamp().written > self.end
                && it.causes.contains(&self.decided)
                && write.causes.contains(&last)
        });
        ended || write.stamp.written > self.end
    }

    /// Compares what a replica shows with what the wall clocks say.
    fn check(&mut self, at: usize) {
        let wall = self.world.wall(at);
        let vector = self.world.engine(at).vector().clone();
        let passed = wall > self.end && vector.contains(&self.decided);
        let removed = self.world.commits.iter().any(|delivered| {
            let commit = Commit::decode(&delivered.commit).unwrap();
            vector.get(&commit.origin) >= commit.last() && commit.stamp().written > self.end
        });
        for field in FIELDS {
            let shown = self.world.run(at, |txn| txn.hash_get(0, b"k", field.as_bytes()).unwrap());
            let known =
                self.writes.iter().filter(|it| it.field == field && vector.contains(&it.dot));
            // Of what is not hidden the one that the hybrid clock puts last.
            let late =
                |write: &&Write| (write.stamp.written > self.end, write.stamp.hlc, write.dot);
            let newest = match passed {
                true => known.max_by_key(late),
                false => known.max_by_key(|write| (write.stamp.hlc, write.dot)),
            };
            let Some(newest) = newest else {
                assert_eq!(shown, None, "replica {at} {field}");
                continue;
            };
            let late = self.is_late(newest);
            let shown = shown.map(|value| self.writes.iter().find(|it| it.value == value).unwrap());
            // What the removal had not seen is still there after it.
            let is_free = |write: &Write| {
                removed
                    && !write.causes.contains(&self.decided)
                    && !self.decided_after.contains(&write.dot)
            };
            match shown {
                Some(write) if write.value == newest.value && (late || !passed) => {
                    self.late += u64::from(late);
                }
                Some(write) if self.is_late(write) || is_free(write) => self.free += 1,
                // A node whose clock is ahead has removed what it saw, before the deadline passes here.
                None if !late && (passed || removed) => self.hidden += 1,
                // A slow clock wrote after the end, while another slow one had copied the deadline: it takes
                // clocks that are apart by a good part of the time to live.
                None if late => self.lost += 1,
                Some(_) if !passed && removed => {}
                other => panic!(
                    "replica {at} {field}: {:?} instead of {:?}, late {late}, passed {passed}",
                    other.map(|it| &it.value),
                    newest.value
                ),
            }
        }
    }

    fn check_all(&mut self) {
        (0..self.world.replicas.len()).for_each(|at| self.check(at));
    }

    /// Deadlines pass: only the node that set it removes.
    fn expire(&mut self, at: usize) {
        let before = self.world.commits.len();
        self.world.expire(at);
        let minted = self.world.commits.len() - before;
        assert!(at == 0 || minted == 0, "replica {at} removed what replica 0 has to");
    }

    fn run(&mut self) {
        let replicas = self.world.replicas.len();
        for step in 0..55 {
            let at = self.world.rng.below(replicas);
            match self.world.rng.below(100) {
                0..30 if step < 40 => {
                    let field = FIELDS[1 + self.world.rng.below(3)];
                    self.write(at, field);
                }
                0..70 => drop(self.world.deliver(at)),
                70..75 => {
                    let from = self.world.rng.below(replicas);
                    if from != at {
                        self.world.transfer(from, at);
                    }
                }
                75..80 => self.world.engine(at).sync().unwrap(),
                _ => {}
            }
            self.expire(at);
            self.check_all();
            self.world.now += 2;
        }
        self.world.now += 1_000;
        for _ in 0..2 {
            (0..replicas).for_each(|at| self.expire(at));
            self.world.settle();
        }
        self.check_all();
        self.world.check_digests();
        for at in 0..replicas {
            self.world.verify(at);
            assert_eq!(self.world.dump(at), self.world.dump(0));
            // Nothing is left that waits for the deadline.
            let left = self.world.run(at, |txn| txn.deadline(0, b"k").unwrap().flatten());
            assert_eq!(left, None);
        }
    }
}

fn executions(skew: usize) {
    let (mut late, mut hidden, mut free, mut lost) = (0, 0, 0, 0);
    for seed in 0..1_500 {
        let run = || {
            let mut execution = Execution::new(seed, skew);
            execution.run();
            (execution.late, execution.hidden, execution.free, execution.lost)
        };
        let counts = named(format_args!("skew {skew}, seed {seed}"), run);
        (late, hidden, free) = (late + counts.0, hidden + counts.1, free + counts.2);
        lost += counts.3;
    }
    println!("skew {skew}: {late} late writes there, {hidden} hidden, {free} free, {lost} lost");
    assert!(late > 10_000 && hidden > 10_000);
    assert!(if skew == 0 { lost == 0 } else { lost * 20 < late }, "{lost} new lives were lost");
}

#[test]
fn deadlines_take_what_is_stamped_before_them_with_equal_clocks() {
    executions(0);
}

#[test]
fn deadlines_take_what_is_stamped_before_them_with_skew_15() {
    executions(15);
}

#[test]
fn deadlines_take_what_is_stamped_before_them_with_skew_40() {
    executions(40);
}

// ---- conflicts ---------------------------------------------------------------------------------------

/// Two replicas with equal clocks.
fn pair() -> World {
    let mut world = World::new(1, 2);
    world.replicas.iter_mut().for_each(|replica| replica.skew = 0);
    world
}

fn at(world: &World, later: u64) -> Option<Millis> {
    Some(Millis(world.now + later))
}

fn hset(world: &mut World, replica: usize, field: &str) {
    let pair = [(bytes(field), bytes("v"))];
    world.run(replica, |txn| txn.hash_set(0, b"k", &pair).unwrap());
}

fn expire(world: &mut World, replica: usize, time: Option<Millis>) {
    assert!(world.run(replica, |txn| txn.expire(0, b"k", time).unwrap()));
}

/// Delivers everything and returns the deadline that both replicas have come to.
fn settled(world: &mut World) -> Option<Option<Millis>> {
    for at in [0, 1] {
        while world.deliver(at) {}
    }
    world.check_digests();
    let [one, other] = [0, 1].map(|at| world.run(at, |txn| txn.deadline(0, b"k").unwrap()));
    assert_eq!(one, other);
    one
}

/// A hash that both replicas know, with a deadline or none.
fn shared(deadline: Option<u64>) -> World {
    let mut world = pair();
    hset(&mut world, 0, "f");
    if let Some(later) = deadline {
        let time = at(&world, later);
        expire(&mut world, 0, time);
    }
    settled(&mut world);
    world
}

#[test]
fn of_concurrent_deadlines_the_longest_counts() {
    let mut world = shared(None);
    let (short, long) = (at(&world, 10), at(&world, 50));
    expire(&mut world, 0, short);
    expire(&mut world, 1, long);
    assert_eq!(settled(&mut world), Some(long));
}

#[test]
fn of_a_deadline_and_a_persist_the_persist_counts() {
    let mut world = shared(Some(100));
    let short = at(&world, 10);
    expire(&mut world, 0, short);
    expire(&mut world, 1, None);
    assert_eq!(settled(&mut world), Some(None));
}

#[test]
fn a_later_decision_replaces_the_earlier_one() {
    let mut world = shared(Some(100));
    let short = at(&world, 10);
    expire(&mut world, 1, short);
    assert_eq!(settled(&mut world), Some(short));
    expire(&mut world, 0, None);
    assert_eq!(settled(&mut world), Some(None));
    expire(&mut world, 1, short);
    assert_eq!(settled(&mut world), Some(short));
}

#[test]
fn copies_of_a_replaced_decision_do_not_count() {
    let mut world = shared(Some(100));
    let short = at(&world, 10);
    expire(&mut world, 0, short);
    hset(&mut world, 1, "g");
    assert_eq!(settled(&mut world), Some(short));
    // The other way round: PERSIST, and a copy of what it took away.
    let mut world = shared(Some(100));
    expire(&mut world, 0, None);
    hset(&mut world, 1, "g");
    assert_eq!(settled(&mut world), Some(None));
}

#[test]
fn a_set_replaces_the_decision_it_has_seen_whatever_type_it_was_for() {
    // Over a string.
    let mut world = pair();
    let (short, long) = (at(&world, 10), at(&world, 100));
    world.run(0, |txn| txn.set(0, b"k", bytes("1"), Ttl::At(long.unwrap())).unwrap());
    settled(&mut world);
    world.run(0, |txn| txn.set(0, b"k", bytes("2"), Ttl::At(short.unwrap())).unwrap());
    world.run(1, |txn| txn.increment(0, b"k", 1).unwrap());
    assert_eq!(settled(&mut world), Some(short));
    // Over a hash: the copy that HSET makes is one of a replaced decision.
    let mut world = shared(Some(100));
    world.run(0, |txn| txn.set(0, b"k", bytes("1"), Ttl::At(short.unwrap())).unwrap());
    hset(&mut world, 1, "g");
    assert_eq!(settled(&mut world), Some(short));
    // Over a hash of many fields, which is removed by scope.
    let mut world = shared(Some(100));
    let fields: Vec<_> = (0..100).map(|n| (bytes(&n.to_string()), bytes("v"))).collect();
    world.run(0, |txn| txn.hash_set(0, b"k", &fields).unwrap());
    settled(&mut world);
    world.run(0, |txn| txn.set(0, b"k", bytes("1"), Ttl::At(short.unwrap())).unwrap());
    hset(&mut world, 1, "g");
    assert_eq!(settled(&mut world), Some(short));
}

#[test]
fn a_set_without_a_deadline_takes_it_away() {
    let mut world = shared(Some(100));
    world.run(0, |txn| txn.set(0, b"k", bytes("1"), Ttl::Clear).unwrap());
    hset(&mut world, 1, "g");
    assert_eq!(settled(&mut world), Some(None));
}

#[test]
fn a_set_with_keepttl_and_every_other_write_keep_it() {
    let mut world = pair();
    let long = at(&world, 100);
    world.run(0, |txn| txn.set(0, b"k", bytes("1"), Ttl::At(long.unwrap())).unwrap());
    world.run(0, |txn| txn.set(0, b"k", bytes("2"), Ttl::Keep).unwrap());
    settled(&mut world);
    // DEL takes the deadline; the concurrent increment brings its own copy.
    world.run(0, |txn| txn.delete(0, b"k").unwrap());
    world.run(1, |txn| txn.increment(0, b"k", 1).unwrap());
    assert_eq!(settled(&mut world), Some(long));
    let value = world.run(0, |txn| txn.get(0, b"k").unwrap());
    assert_eq!(value, Some(bytes("1")));
}

#[test]
fn a_persist_removes_a_deadline_and_says_whether_there_was_one() {
    let mut world = shared(None);
    assert!(!world.run(0, |txn| txn.expire(0, b"k", None).unwrap()));
    let time = at(&world, 10);
    expire(&mut world, 0, time);
    expire(&mut world, 0, None);
    assert!(!world.run(0, |txn| txn.expire(0, b"k", None).unwrap()));
    assert!(!world.run(0, |txn| txn.expire(0, b"absent", time).unwrap()));
}

#[test]
fn one_deadline_costs_one_removal() {
    let mut world = shared(Some(10));
    let before = world.commits.len();
    world.now += 11;
    for at in [1, 0, 1, 0] {
        world.expire(at);
        assert_eq!(world.run(at, |txn| txn.kind(0, b"k").unwrap()), None);
        assert_eq!(world.run(at, |txn| txn.db_size(0).unwrap()), 0);
    }
    assert_eq!(world.commits.len(), before + 1);
    assert_eq!(settled(&mut world), None);
    assert_eq!(world.engine(1).next_deadline(), None);
}

#[test]
fn reaching_a_deadline_takes_elements_out_of_views_without_a_dot() {
    let mut world = pair();
    let (time, members) = (at(&world, 10), [bytes("1"), bytes("2")]);
    world.run(0, |txn| {
        txn.set_add(0, b"k", &members).unwrap();
        txn.expire(0, b"k", time).unwrap();
        txn.bind(0, b"view", "MAP", &[bytes("k")], "x * 10").unwrap();
    });
    settled(&mut world);
    world.now += 11;
    let vector = world.engine(1).vector().clone();
    world.expire(1);
    assert_eq!(world.dump(1), Vec::<String>::new());
    world.verify(1);
    assert_eq!(world.engine(1).vector(), &vector);
}

/// A restart with a clock that was set back: the deadline has not passed any more, and passes again.
#[test]
fn a_deadline_passes_again_after_the_clock_was_set_back() {
    let mut world = pair();
    let (time, members) = (at(&world, 10_000), [bytes("1")]);
    world.run(0, |txn| {
        txn.set_add(0, b"k", &members).unwrap();
        txn.expire(0, b"k", time).unwrap();
        txn.bind(0, b"view", "MAP", &[bytes("k")], "x * 10").unwrap();
    });
    settled(&mut world);
    world.now += 10_001;
    world.expire(1);
    assert_eq!(world.dump(1), Vec::<String>::new());
    world.now -= 5_000;
    world.open(1);
    let kind = world.run(1, |txn| txn.kind(0, b"k").unwrap());
    assert!(kind.is_some());
    assert_eq!(world.dump(1), ["set k 1", "set view 10"]);
    world.verify(1);
    assert_eq!(world.engine(1).next_deadline(), time);
    world.now += 5_000;
    world.expire(1);
    assert_eq!(world.dump(1), Vec::<String>::new());
    world.verify(1);
}

/// What was written after a state was joined is later than all that its sender had stamped.
#[test]
fn a_joined_state_moves_the_clock() {
    let mut world = pair();
    world.replicas[0].skew = 5_000;
    hset(&mut world, 0, "f");
    world.run(0, |txn| txn.delete(0, b"k").unwrap());
    world.transfer(0, 1);
    assert!(world.engine(1).clock() >= world.engine(0).clock());
}

/// A key that is derived has no time to live, whatever client data it hides.
#[test]
fn a_derived_key_has_no_deadline() {
    let mut world = pair();
    let time = at(&world, 100);
    world.run(0, |txn| txn.set(0, b"k", bytes("1"), Ttl::At(time.unwrap())).unwrap());
    world.run(1, |txn| {
        txn.set_add(0, b"s", &[bytes("1")]).unwrap();
        txn.bind(0, b"k", "MAP", &[bytes("s")], "x").unwrap();
    });
    assert_eq!(settled(&mut world), Some(None));
    world.run(1, |txn| txn.unbind(0, b"k").unwrap());
    assert_eq!(settled(&mut world), Some(time));
}

/// Applies the n-th commit of the world at a replica.
fn deliver(world: &mut World, replica: usize, index: usize) {
    let commit = world.commits[index].commit.clone();
    let now = world.wall(replica);
    let mut tick = world.engine(replica).tick(now);
    assert_eq!(tick.apply(&commit), Ok(true));
    tick.seal(false).unwrap();
}

/// A copy carries on what was replaced by any decision that it supersedes, not by its own alone.
#[test]
fn what_was_replaced_stays_replaced_when_a_copy_supersedes_the_decision_that_said_so() {
    let mut world = World::new(1, 4);
    world.replicas.iter_mut().for_each(|replica| replica.skew = 0);
    let [first, second, third] = [100, 50, 10].map(|later| at(&world, later));
    hset(&mut world, 0, "f");
    for replica in 1..4 {
        deliver(&mut world, replica, 0);
    }
    expire(&mut world, 0, first); // commit 1
    deliver(&mut world, 3, 1);
    deliver(&mut world, 2, 1);
    expire(&mut world, 1, second); // commit 2, does not know commit 1
    expire(&mut world, 0, third); // commit 3, replaces commit 1
    hset(&mut world, 3, "copies the first"); // commit 4
    deliver(&mut world, 2, 2);
    deliver(&mut world, 2, 3);
    hset(&mut world, 2, "copies the second"); // commit 5, supersedes commit 3
    for replica in 0..4 {
        while world.deliver(replica) {}
        let deadline = world.run(replica, |txn| txn.deadline(0, b"k").unwrap());
        assert_eq!(deadline, Some(second));
    }
    world.check_digests();
}

/// A deadline that outlived its key says nothing of the next life of that name.
#[test]
fn a_new_key_does_not_inherit_a_deadline() {
    let left_alone = || {
        let mut world = shared(None);
        let time = at(&world, 100);
        world.run(0, |txn| txn.delete(0, b"k").unwrap());
        expire(&mut world, 1, time);
        assert_eq!(settled(&mut world), None);
        world
    };
    let mut world = left_alone();
    hset(&mut world, 0, "g");
    assert_eq!(settled(&mut world), Some(None));
    let mut world = left_alone();
    world.run(1, |txn| txn.increment(0, b"k", 1).unwrap());
    assert_eq!(settled(&mut world), Some(None));
    for ttl in [Ttl::Clear, Ttl::Keep] {
        let mut world = left_alone();
        world.run(1, |txn| txn.set(0, b"k", bytes("v"), ttl).unwrap());
        assert_eq!(settled(&mut world), Some(None));
    }
    // What is emptied by two nodes leaves its deadline in the same way.
    let mut world = shared(None);
    hset(&mut world, 0, "g");
    let time = at(&world, 100);
    expire(&mut world, 0, time);
    settled(&mut world);
    for (replica, field) in [(0, "f"), (1, "g")] {
        world.run(replica, |txn| txn.hash_remove(0, b"k", &[bytes(field)]).unwrap());
    }
    assert_eq!(settled(&mut world), None);
    hset(&mut world, 1, "h");
    assert_eq!(settled(&mut world), Some(None));
    world.now += 200;
    (0..2).for_each(|at| world.expire(at));
    assert_eq!(world.dump(0), ["hash k h v"]);
}

#[test]
fn of_several_decisions_in_one_commit_the_last_counts() {
    let mut world = pair();
    let (short, long) = (at(&world, 10), at(&world, 100));
    world.run(0, |txn| {
        txn.set(0, b"k", bytes("1"), Ttl::At(short.unwrap())).unwrap();
        txn.set(0, b"k", bytes("2"), Ttl::At(long.unwrap())).unwrap();
    });
    assert_eq!(settled(&mut world), Some(long));
    world.run(1, |txn| {
        for time in [long, None, short] {
            assert!(txn.expire(0, b"k", time).unwrap());
        }
        // A copy of what the same commit has decided.
        txn.set(0, b"k", bytes("3"), Ttl::Keep).unwrap();
    });
    assert_eq!(settled(&mut world), Some(short));
}

/// A copy of a decision is no word about others: if the copied one is replaced by a node that has not seen a
/// shorter one, the shorter one is still there, and the longest of those left counts.
#[test]
fn a_copy_forgets_no_concurrent_decision() {
    let mut world = World::new(1, 3);
    world.replicas.iter_mut().for_each(|replica| replica.skew = 0);
    hset(&mut world, 0, "f");
    for to in [1, 2] {
        while world.deliver(to) {}
    }
    let [long, short, shortest] = [100, 50, 20].map(|later| at(&world, later));
    expire(&mut world, 0, long);
    // The third replica knows the long one alone, and replaces it.
    while world.deliver(2) {}
    expire(&mut world, 2, shortest);
    let replacing = world.commits.pop().unwrap();
    // The second decides beside it; the first sees both and writes, which copies the long one.
    expire(&mut world, 1, short);
    while world.deliver(0) {}
    hset(&mut world, 0, "g");
    world.commits.push(replacing);
    for to in [0, 1, 2] {
        while world.deliver(to) {}
    }
    world.check_digests();
    for replica in 0..3 {
        let left = world.run(replica, |txn| txn.deadline(0, b"k").unwrap());
        assert_eq!(left, Some(short), "replica {replica}");
    }
}

/// A hybrid clock that was carried far ahead stops no deadline: they run by the wall clock. What was written
/// by such a clock before the deadline goes with it, and what was written after it does not.
#[test]
fn a_clock_that_was_ahead_stops_no_deadline() {
    let mut world = pair();
    world.replicas[1].skew = 7_200_000;
    world.run(1, |txn| txn.set(0, b"poison", bytes("x"), Ttl::Clear).unwrap());
    while world.deliver(0) {}
    assert!(world.engine(0).clock().millis().0 >= world.now + 7_200_000);
    let end = world.now + 2_000;
    world.run(0, |txn| txn.set(0, b"lock", bytes("v"), Ttl::At(Millis(end))).unwrap());
    hset(&mut world, 0, "f");
    let time = Some(Millis(end));
    expire(&mut world, 0, time);
    world.now = end;
    assert_eq!(world.run(0, |txn| txn.deadline(0, b"lock").unwrap()), Some(time));
    assert_eq!(world.run(0, |txn| txn.now()), Millis(end));
    world.now = end + 1;
    assert_eq!(world.run(0, |txn| txn.get(0, b"lock").unwrap()), None);
    assert_eq!(world.run(0, |txn| txn.hash_get(0, b"k", b"f").unwrap()), None);
    hset(&mut world, 0, "g");
    world.expire(0);
    assert!(world.run(0, |txn| txn.hash_get(0, b"k", b"g").unwrap()).is_some());
    // Its writes say how far ahead the clock was.
    let commit = Commit::decode(&world.commits.last().unwrap().commit).unwrap();
    assert!(commit.lead >= 7_190_000);
    assert_eq!(commit.stamp().written, Millis(world.now));
    world.verify(0);
}

/// What a deadline has hidden at a node stays hidden there when its clock steps back, also after a restart; a
/// new decision shows a new life.
#[test]
fn what_was_hidden_stays_hidden_when_the_clock_steps_back() {
    for removed in [false, true] {
        let mut world = shared(Some(100));
        // The second replica hides, and is not the one that removes.
        let (now, at) = (world.now, usize::from(!removed));
        world.now += 101;
        assert_eq!(world.run(at, |txn| txn.kind(0, b"k").unwrap()), None);
        world.expire(at);
        world.now = now;
        assert_eq!(world.run(at, |txn| txn.kind(0, b"k").unwrap()), None);
        world.engine(at).flush().unwrap();
        world.open(at);
        assert_eq!(world.run(at, |txn| txn.kind(0, b"k").unwrap()), None);
        world.verify(at);
        hset(&mut world, at, "g");
        assert!(world.run(at, |txn| txn.hash_get(0, b"k", b"g").unwrap()).is_some());
        assert_eq!(world.run(at, |txn| txn.deadline(0, b"k").unwrap()), Some(None));
        world.verify(at);
    }
}
