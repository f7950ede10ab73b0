//! Pages against a plain ordered map.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::*;

thread_local! {
    /// Bits of the hashes that count: with few of them many rows have the same one.
    static BITS: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// The order of rows.
pub(super) fn hash(name: &[u8]) -> u64 {
    crate::name::hash(name) & BITS.get()
}

/// Numbers that follow from a seed (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators").
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

type Rows = BTreeMap<(u64, Vec<u8>), Vec<u8>>;

/// Memory beside a store, and what both together should be.
struct World {
    pages: Pages,
    tree: TreeId,
    store: Rows,
    /// A generation that is being written, and what was the whole when it was closed.
    frozen: Option<(Option<Run>, Rows)>,
    rows: Rows,
}

fn key(name: &[u8]) -> (u64, Vec<u8>) {
    (hash(name), name.to_vec())
}

impl World {
    fn new() -> World {
        let mut pages = Pages::new(7);
        let tree = pages.add_tree(Family::Keys, b"pp", true);
        let (store, rows) = (Rows::new(), Rows::new());
        World { pages, tree, store, frozen: None, rows }
    }

    fn get(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let place = key(name);
        match self.pages.find(self.tree, (place.0, name)) {
            Lookup::Row(row) => Some(whole(self.pages.value(row))),
            Lookup::Absent | Lookup::Removed => None,
            Lookup::Unknown => {
                let found = self.store.get(&place).cloned();
                if let Some(value) = &found {
                    self.pages.fill(self.tree, (place.0, name), Value::Packed(value));
                }
                found
            }
        }
    }

    fn change(&mut self, name: &[u8], value: Option<Vec<u8>>) {
        let place = key(name);
        let packed = value.as_ref().map(|value| Value::Packed(value));
        self.pages.change(self.tree, (place.0, name), packed, false);
        match value {
            Some(value) => drop(self.rows.insert(place, value)),
            None => drop(self.rows.remove(&place)),
        }
    }

    fn freeze(&mut self) {
        self.pages.close(Run::default());
        self.frozen = Some((None, self.rows.clone()));
    }

    /// Goes on with the generation; true if all of it is in its run.
    fn encode(&mut self, rows: usize) -> bool {
        match &mut self.frozen {
            Some((run @ None, _)) => *run = self.pages.encode(rows),
            Some(_) => {}
            None => return false,
        }
        self.frozen.as_ref().is_some_and(|(run, _)| run.is_some())
    }

    fn thaw(&mut self, written: bool) {
        if !self.encode(usize::MAX) {
            return;
        }
        let Some((Some(run), then)) = self.frozen.take() else { return };
        let changes: Vec<_> = run
            .changes()
            .map(|(stored, value)| {
                let (_, name) = crate::store::keys::name_at(&stored[1..], 2);
                (name.to_vec(), value.map(|value| value.whole().to_vec()))
            })
            .collect();
        if !written {
            self.pages.freeze_again();
            for (name, _) in &changes {
                self.pages.owe(self.tree, (hash(name), name));
            }
            return;
        }
        for (name, value) in changes {
            match value {
                Some(value) => drop(self.store.insert(key(&name), value)),
                None => drop(self.store.remove(&key(&name))),
            }
        }
        self.pages.thaw();
        // A generation is what was there when it was closed, whatever has changed since.
        same(&self.store, &then, 0);
    }

    /// All rows from a place on.
    fn walk(&mut self, from: u64) -> Rows {
        let mut found = Rows::new();
        let mut from = (from, Box::<[u8]>::default());
        loop {
            let walked = self.pages.walk(self.tree, (from.0, &from.1), &mut |name, value| {
                assert!(found.insert(key(name), whole(value)).is_none(), "twice");
                ControlFlow::Continue(())
            });
            let Walk::Gap(hash, low, to) = walked else { return found };
            let start = (hash, low.to_vec());
            let to = to.map(|(hash, name)| (hash, name.to_vec()));
            let within = self.store.range(start..);
            let mut within = within.take_while(|(name, _)| to.as_ref().is_none_or(|to| *name < to));
            let slice: Vec<_> = within.by_ref().take(50).collect();
            let next = within.next().map(|(name, _)| name.clone()).or(to);
            let rows = slice
                .iter()
                .map(|((hash, name), value)| ((*hash, name.as_slice()), Value::Packed(value)));
            let end = next.as_ref().map(|(hash, name)| (*hash, name.as_slice()));
            self.pages.fill_interval(self.tree, (hash, &low), end, rows);
            from = (hash, low);
        }
    }
}

fn same(found: &Rows, expected: &Rows, seed: u64) {
    let differ = |it: &&(u64, Vec<u8>)| found.get(*it) != expected.get(*it);
    let mut names = found.keys().chain(expected.keys());
    if let Some((hash, name)) = names.find(differ) {
        let place = (*hash, name.clone());
        let [found, expected] = [found, expected]
            .map(|rows| rows.get(&place).map(|value| (value.len(), value.first())));
        let name = String::from_utf8_lossy(name);
        panic!("seed {seed}, {name} {hash:x}: {found:?}, not {expected:?} (length, first byte)");
    }
}

fn whole(value: Value<'_>) -> Vec<u8> {
    match value {
        Value::Packed(bytes) => bytes.to_vec(),
        Value::Beside(first, rest) => [first, rest].concat(),
    }
}

fn value(random: &mut Random) -> Vec<u8> {
    let len = match random.below(20) {
        0 => 1_000 + random.below(3_000),
        1 => random.below(300),
        _ => random.below(20),
    };
    (0..len).map(|_| random.below(256) as u8).collect()
}

#[test]
fn pages_are_an_ordered_map_whatever_moves() {
    for seed in 0..60 {
        BITS.set(if seed % 4 == 3 { 3 << 40 } else { u64::MAX });
        let random = &mut Random(seed);
        let mut world = World::new();
        let names = 10 + random.below(3_000);
        for step in 0..6_000 {
            let name = format!("n{}", random.below(names)).into_bytes();
            match random.below(100) {
                0..40 => {
                    let value = value(random);
                    world.change(&name, Some(value));
                }
                // More goes than comes, for a while.
                40..75 => {
                    let goes = step / 1_000 % 2 == 1 || random.below(3) == 0;
                    if goes {
                        world.change(&name, None);
                    }
                }
                75..92 => assert_eq!(world.get(&name), world.rows.get(&key(&name)).cloned()),
                92 => {
                    let from = if random.below(2) == 0 { 0 } else { hash(&name) };
                    let expected: Rows = world
                        .rows
                        .range((from, Vec::new())..)
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect();
                    same(&world.walk(from), &expected, seed);
                }
                93 if world.frozen.is_none() => world.freeze(),
                94 => world.thaw(true),
                95 => drop(world.encode(40)),
                96 => world.thaw(false),
                97 | 98 => {
                    let limit = world.pages.bytes() / 2;
                    world.pages.evict(limit, false);
                }
                _ => drop(world.pages.settle(3)),
            }
        }
        same(&world.walk(0), &world.rows.clone(), seed);
        // What memory says that the store lacks is all that it lacks.
        world.thaw(true);
        world.freeze();
        world.thaw(true);
        same(&world.store, &world.rows, seed);
        assert_eq!(world.pages.unwritten(), 0);
        while world.pages.settle(10) {}
        for _ in 0..1_000 {
            world.pages.evict(0, false);
        }
        let left = world.pages.bytes();
        assert!(left < 1_000, "{left} bytes of nothing");
    }
}

#[test]
fn what_comes_and_goes_between_two_generations_costs_the_store_nothing() {
    let mut world = World::new();
    for number in 0..1_000 {
        world.change(format!("n{number}").as_bytes(), Some(vec![1]));
    }
    for number in 0..1_000 {
        world.change(format!("n{number}").as_bytes(), None);
    }
    assert_eq!(world.pages.unwritten(), 0);
    world.freeze();
    world.thaw(true);
    assert!(world.store.is_empty());
}

#[test]
fn many_rows_of_one_hash_are_in_order_of_their_names() {
    BITS.set(0);
    let mut pages = Pages::new(7);
    let tree = pages.add_tree(Family::Keys, b"pp", true);
    let names: Vec<Vec<u8>> = (0..5_000).map(|n| format!("{n}").into_bytes()).collect();
    for name in &names {
        pages.change(tree, (0, name), Some(Value::Packed(b"v")), false);
    }
    for name in &names {
        assert!(matches!(pages.find(tree, (0, name)), Lookup::Row(_)));
    }
    assert!(matches!(pages.find(tree, (0, b"x")), Lookup::Absent));
}

/// A db is cleared while its rows are on their way to the store.
#[test]
fn what_is_cleared_while_it_is_written_is_forgotten() {
    BITS.set(u64::MAX);
    for encoded in [0, 100, usize::MAX] {
        let mut pages = Pages::new(7);
        let tree = pages.add_tree(Family::Data, b"\0\0pp", true);
        let change = |pages: &mut Pages, tree, from: u64| {
            for number in from..from + 1_000 {
                let name = number.to_be_bytes();
                pages.change(tree, (hash(&name), &name), Some(Value::Packed(b"v")), true);
            }
        };
        change(&mut pages, tree, 0);
        pages.close(Run::default());
        pages.encode(encoded);
        change(&mut pages, tree, 500);
        pages.detach(0);
        while pages.purge(2) {
            pages.owed_bytes();
        }
        pages.owed_bytes();
        let tree = pages.add_tree(Family::Data, b"\0\0pp", true);
        change(&mut pages, tree, 0);
        pages.encode(usize::MAX);
        pages.thaw();
        pages.close(Run::default());
        assert!(pages.encode(usize::MAX).is_some_and(|run| run.changes().count() == 1_000));
        pages.thaw();
        while pages.settle(3) {}
        assert_eq!((pages.unwritten(), pages.owed_bytes()), (0, 0));
    }
}
