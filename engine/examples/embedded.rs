//! Two engines in one program, without a server: each takes writes on its own, they exchange their
//! commits as bytes, and come to the same state, a derived key included.
//!
//! Run it with `cargo run -p lattis-engine --no-default-features --example embedded`.

#![allow(clippy::print_stdout, reason = "an example says what it does")]

use std::error::Error;
use std::ops::ControlFlow;

use lattis_engine::causal::{Millis, NodeId};
use lattis_engine::codec::{Reader, Writer};
use lattis_engine::commit::LogEntry;
use lattis_engine::store::MemStore;
use lattis_engine::{Engine, EngineConfig, Fresh, OpResult, Txn};

type Node = Engine<MemStore>;
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Node identity, randomness and time are arguments: the engine has none of its own.
fn open(node: u64, nonce: u64) -> Outcome<Node> {
    let fresh = Fresh { node: NodeId(node), nonce };
    Ok(Engine::open(MemStore::new(), EngineConfig::default(), fresh, Millis(1_000))?)
}

/// Runs commands as one transaction in a tick of its own. Returns what other nodes have to be sent.
fn write(
    engine: &mut Node,
    now: u64,
    commands: impl FnOnce(&mut Txn<'_, MemStore>) -> OpResult<()>,
) -> Outcome<Vec<u8>> {
    let mut tick = engine.tick(Millis(now));
    let mut txn = tick.txn();
    commands(&mut txn)?;
    txn.commit();
    let mut out = Writer::new();
    if let Some(sealed) = tick.seal(true)? {
        sealed.entries.iter().for_each(|entry| entry.encode(&mut out));
    }
    Ok(out.into_vec())
}

/// Applies what another node has sent. A commit that is already there does nothing; one that comes too
/// early is refused, and changes nothing.
fn receive(engine: &mut Node, now: u64, bytes: &[u8]) -> Outcome<()> {
    let mut tick = engine.tick(Millis(now));
    let mut input = Reader::new(bytes);
    while !input.is_empty() {
        if let LogEntry::Commit(commit) = LogEntry::decode(&mut input)? {
            tick.apply(&commit)?;
        }
    }
    tick.seal(true)?;
    Ok(())
}

/// Prints what clients of a node would see.
fn show(name: &str, engine: &mut Node, now: u64) -> Outcome<()> {
    let mut tick = engine.tick(Millis(now));
    let mut txn = tick.txn();
    let views = txn.get(0, b"views")?.unwrap_or_default();
    println!("{name}: views = {}", String::from_utf8_lossy(&views));
    for key in ["prices", "cents"] {
        let mut members = Vec::new();
        txn.set_members(0, key.as_bytes(), &mut |member| {
            members.push(String::from_utf8_lossy(member).into_owned());
            ControlFlow::Continue(())
        })?;
        println!("{name}: {key} = {{{}}}", members.join(", "));
    }
    drop(txn);
    tick.seal(false)?;
    println!("{name}: digest {:032x}", engine.digest());
    Ok(())
}

fn main() -> Outcome<()> {
    let mut paris = open(1, 11)?;
    let mut tokyo = open(2, 22)?;

    println!("Paris binds a view, and both write while they do not see each other.");
    let from_paris = write(&mut paris, 2_000, |txn| {
        txn.bind(0, b"cents", "MAP", &["prices".into()], "x * 100")?;
        txn.set_add(0, b"prices", &["3".into(), "5".into()])?;
        txn.increment(0, b"views", 10).map(drop)
    })?;
    let from_tokyo = write(&mut tokyo, 2_000, |txn| {
        txn.set_add(0, b"prices", &["5".into(), "8".into()])?;
        txn.increment(0, b"views", 7).map(drop)
    })?;
    show("Paris", &mut paris, 2_000)?;
    show("Tokyo", &mut tokyo, 2_000)?;

    println!("They exchange {} and {} bytes.", from_paris.len(), from_tokyo.len());
    receive(&mut tokyo, 2_050, &from_paris)?;
    receive(&mut paris, 2_050, &from_tokyo)?;
    show("Paris", &mut paris, 2_050)?;
    show("Tokyo", &mut tokyo, 2_050)?;
    assert_eq!(paris.digest(), tokyo.digest());

    println!("Paris removes 5 while Tokyo adds it again: the addition was not seen, so it stays.");
    let from_paris =
        write(&mut paris, 3_000, |txn| txn.set_remove(0, b"prices", &["5".into()]).map(drop))?;
    let from_tokyo =
        write(&mut tokyo, 3_000, |txn| txn.set_add(0, b"prices", &["5".into()]).map(drop))?;
    receive(&mut tokyo, 3_050, &from_paris)?;
    receive(&mut paris, 3_050, &from_tokyo)?;
    show("Paris", &mut paris, 3_050)?;
    show("Tokyo", &mut tokyo, 3_050)?;
    assert_eq!(paris.digest(), tokyo.digest());

    // What is kept change by change is what would be computed from scratch.
    paris.verify()?;
    tokyo.verify()?;
    println!("Both are equal, and what is derived is right.");
    Ok(())
}
