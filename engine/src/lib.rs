//! The Lattis engine: CRDT types, causal commits, dataflow and storage.
//!
//! It knows no peers, sockets, clocks, threads or random numbers: time and randomness are arguments, and
//! only `store/rocks.rs` does I/O. A program can embed it without the server:
//!
//! ```
//! use lattis_engine::causal::{Millis, NodeId};
//! use lattis_engine::store::MemStore;
//! use lattis_engine::{Engine, EngineConfig, Fresh};
//!
//! let fresh = Fresh { node: NodeId(7), nonce: 42 };
//! let mut engine = Engine::open(MemStore::new(), EngineConfig::default(), fresh, Millis(1))?;
//! let mut tick = engine.tick(Millis(1));
//! let mut txn = tick.txn();
//! txn.set_add(0, b"numbers", &["1".into(), "2".into()])?;
//! txn.bind(0, b"doubled", "MAP", &["numbers".into()], "x * 2")?;
//! assert!(txn.set_contains(0, b"doubled", b"4")?);
//! txn.commit();
//! let sealed = tick.seal(true)?; // what peers have to be sent
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! From the outside in: [`Engine`] moves everything together, tick by tick; what the [`Txn`]s of a tick
//! change becomes a commit; the keyspace (`space.rs`) keeps all rows and what is derived from them;
//! [`row`] is the dotted state that all CRDTs share, [`crdt`] what each type makes of it, [`dataflow`] the
//! views over them; [`commit`] is what travels; [`store`] is where it lies.

pub mod causal;
pub mod codec;
pub mod commit;
pub mod crdt;
pub mod dataflow;
pub mod name;
#[cfg(feature = "planted")]
pub mod planted;
pub mod row;
pub mod store;

mod draft;
mod engine;
mod header;
mod log;
mod open;
mod ops;
mod pages;
pub mod repair;
mod slots;
mod small;
mod space;
mod tick;
pub mod transfer;
mod txn;
pub mod upgrade;
mod verify;

pub use engine::{
    Engine, EngineConfig, Fresh, Generation, MAX_BYTES, MemoryUse, OpenError, digest,
};
pub use log::{Grafted, LogChunk, LogReader};
pub use ops::Members;
pub use space::Changed;
pub use tick::{Refused, Sealed, Tick};
pub use transfer::{Staged, StateReader};
pub use txn::{
    BindingInfo, Key, KeyInfo, OpError, OpResult, Savepoint, SiblingInfo, SlotInfo, Ttl, Txn,
};
