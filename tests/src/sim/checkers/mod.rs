//! What must hold, judged apart from the code under test: one file per invariant.
//!
//! The checkers keep a history of their own. When a commit is minted they note its facts and everything
//! that its node's *shadow* had delivered, which are its causes. A shadow is a vector that only the
//! checkers move: by the entries that a node has sealed, by what a sender's shadow had when its state
//! was taken, and back, when a node starts again, to what its log holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use lattis_engine::causal::{Dot, Hlc, Millis, Origin, VersionVector};
use lattis_engine::commit::{Commit, EncodedCommit};
use lattis_engine::store::MemStore;
use lattis_engine::{OpResult, Txn};

use super::workload::{Fact, Place, Ran};

pub mod atomicity;
pub mod births;
pub mod causality;
pub mod convergence;
pub mod counters;
pub mod deadlines;
pub mod dots;
pub mod durability;
pub mod elements;
pub mod spec;
pub mod views;

/// What a checker says.
pub type Verdict = Result<(), String>;

/// A commit as the checkers know it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The seq of its first effect.
    pub first: u64,
    /// Its stamp.
    pub hlc: Hlc,
    /// What the writer's wall clock showed.
    pub written: Millis,
    /// What its node had delivered before.
    pub causes: VersionVector,
    /// What it did.
    pub facts: Vec<Fact>,
}

/// Everything that was ever committed, whoever has it still.
#[derive(Debug, Default)]
pub struct History {
    /// By origin and last seq.
    pub commits: BTreeMap<(Origin, u64), Known>,
    /// Dots that were given, by commit.
    pub given: dots::Given,
}

/// What the checkers know of one node.
#[derive(Clone, Debug, Default)]
pub struct Shadow {
    /// What was delivered there.
    pub vector: VersionVector,
    /// The log position of the last entry.
    pub position: u64,
    /// What was delivered up to each position that a crash can lead back to.
    pub states: BTreeMap<u64, VersionVector>,
    /// What no crash may take.
    pub durable: u64,
    /// The transactions of a tick of which nobody knows whether it was written.
    pub doubtful: Vec<Ran>,
    /// The same of its state transfers.
    pub claimed: Vec<VersionVector>,
}

/// What one tick did, beside what its entries tell.
#[derive(Debug, Default)]
pub struct Tally {
    /// Transactions that were committed.
    pub ran: Vec<Ran>,
    /// What the senders of joined states had.
    pub claims: Vec<VersionVector>,
}

impl History {
    /// Takes note of a commit when it is minted.
    pub fn minted(
        &mut self,
        commit: &EncodedCommit,
        causes: &VersionVector,
        ran: &mut Vec<Ran>,
    ) -> Verdict {
        let dot = Dot { origin: commit.origin, seq: commit.last };
        let run = commit.first..=commit.last;
        let own = |it: &mut Ran| it.dot.origin == commit.origin && run.contains(&it.dot.seq);
        let facts = ran.extract_if(.., own).flat_map(|it| it.facts).collect();
        let decoded = Commit::decode(commit).map_err(|error| format!("{dot}: {error}"))?;
        let written = decoded.stamp().written;
        let hlc = decoded.hlc;
        let known = Known { first: commit.first, hlc, written, causes: causes.clone(), facts };
        causality::stamp(self, &dot, &known)?;
        self.commits.insert((commit.origin, commit.last), known);
        Ok(())
    }

    /// The newest commit of an origin that a vector covers.
    pub fn newest(&self, origin: &Origin, seq: u64) -> Option<&Known> {
        self.commits.range((*origin, 0)..=(*origin, seq)).next_back().map(|(_, known)| known)
    }
}

/// What a client reads of the keys that can be computed.
pub type Reading = BTreeMap<Place, Bytes>;

/// Keys that hold strings, sets and hashes; the first of each pair is the db.
pub const STRINGS: [(u16, &str); 8] =
    [(0, "r1"), (0, "r2"), (1, "c1"), (1, "c2"), (1, "c3"), (1, "x"), (1, "y"), (1, "t2")];
/// See [`STRINGS`].
pub const SETS: [(u16, &str); 2] = [(0, "s1"), (1, "t1")];
/// See [`STRINGS`].
pub const HASHES: [(u16, &str); 2] = [(0, "h1"), (1, "ch")];

/// Reads them.
pub fn read(txn: &mut Txn<'_, MemStore>) -> OpResult<Reading> {
    let mut reading = Reading::new();
    for (db, key) in STRINGS {
        if let Some(value) = txn.get(db, key.as_bytes())? {
            reading.insert((db, key, Bytes::new()), value);
        }
    }
    for (db, key) in SETS {
        txn.set_members(db, key.as_bytes(), &mut |member| {
            reading.insert((db, key, Bytes::copy_from_slice(member)), Bytes::new());
            std::ops::ControlFlow::Continue(())
        })?;
    }
    for (db, key) in HASHES {
        txn.hash_fields(db, key.as_bytes(), &mut |field, value| {
            let value = Bytes::copy_from_slice(value);
            reading.insert((db, key, Bytes::copy_from_slice(field)), value);
            std::ops::ControlFlow::Continue(())
        })?;
    }
    Ok(reading)
}

/// A vector, short enough to read.
pub fn show(vector: &VersionVector) -> String {
    let one =
        |(origin, seq): (&Origin, u64)| format!("{:x}.{}:{seq}", origin.node.0, origin.incarnation);
    vector.iter().map(one).collect::<Vec<_>>().join(" ")
}
