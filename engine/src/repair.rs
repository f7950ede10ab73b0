//! Looking through a store for what cannot be read, and making a new one of what can.
//!
//! A store has rows that are the state of one position of its log, the *watermark*. If rows are lost they
//! stay lost, and the vector covers their dots: the new store says how many there were, and gives its state
//! to nobody ([`Engine::snapshot`]). If the log is damaged below the watermark nothing is lost but what
//! peers may still lack; beyond it, what came after the damage.
//!
//! A store is made anew as a peer's state is taken over: everything that can be read is joined into an empty
//! one, so that counts, views and digest follow by the one way there is; then the log beyond the watermark is
//! applied. The origin goes on: the next start is its next incarnation.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use crate::causal::{LogPosition, Millis, Origin, VersionVector};
use crate::codec::CodecError;
use crate::commit::{EncodedCommit, LogEntry};
use crate::crdt::TYPES;
use crate::crdt::hash::HASH;
use crate::engine::{Engine, EngineConfig, Fresh, OpenError, State, load_identity, save_identity};
use crate::log::{decode_row, read_floor};
use crate::name::RowKey;
use crate::row::Row;
use crate::space::load_origins;
use crate::store::{Family, Hole, Read, Store, StoreError, keys, scan_on};
use crate::transfer::{Staged, decode};

/// Something that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is, or would be.
    pub what: String,
    /// What reading it gives.
    pub why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// What a look through a store has found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Stored rows that can be read.
    pub rows: u64,
    /// The log position that they are the state of.
    pub watermark: u64,
    /// The last position of the log that can be reached.
    pub log_end: u64,
    /// Rows, or ranges of them, that cannot be read.
    pub damaged_rows: Vec<Finding>,
    /// Places of the log that cannot be read, or do not fit.
    pub damaged_log: Vec<Finding>,
    /// What else cannot be read: who the node is, what its rows are the state of.
    pub damaged_head: Vec<Finding>,
}

impl Report {
    /// Whether there is nothing that cannot be read.
    pub fn is_whole(&self) -> bool {
        self.findings().next().is_none()
    }

    /// All of it.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.damaged_head.iter().chain(&self.damaged_log).chain(&self.damaged_rows)
    }
}

/// Why nothing could be made of a store. It was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// What all rows are read by is lost.
    #[error("{0} cannot be read, and without it nothing else")]
    Hopeless(&'static str),
    /// The new store failed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Reading or writing failed otherwise.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads a store through. Cost: all of it, without keeping it.
pub fn examine<R: Read>(store: &R) -> Result<Report, StoreError> {
    Ok(read_through(store, &mut |_, _| {})?.report)
}

/// Makes an empty store of what can be read in another one. Cost: all of it, in memory too. `fresh` names
/// the node if its own name cannot be read.
pub fn rescue<R: Read, S: Store>(
    from: &R,
    to: S,
    fresh: Fresh,
    now: Millis,
) -> Result<Report, RepairError> {
    let mut rows = BTreeMap::new();
    let found = read_through(from, &mut |name, row| drop(rows.insert(name, row)))?;
    let state = found.state.ok_or(RepairError::Hopeless("what the rows are the state of"))?;
    let mut staged = Staged::new(&TYPES, usize::MAX);
    (staged.vector, staged.clock, staged.rows) = (state.vector.clone(), state.clock, rows);
    let origin = found.identity.unwrap_or(Origin { node: fresh.node, ..Origin::default() });
    save_identity(&to, origin)?;
    let mut engine = Engine::open(to, EngineConfig::default(), fresh, now)?;
    let mut tick = engine.tick(now);
    tick.join(&staged)?;
    tick.seal(true)?;
    for commit in &found.beyond {
        let mut tick = engine.tick(now);
        // What does not follow has lost what it follows: it is lost with it.
        if tick.apply(commit).is_ok() {
            tick.seal(false)?;
        }
    }
    engine.space.note_lost(found.lost + found.report.damaged_rows.len() as u64);
    engine.close()?;
    Ok(found.report)
}

struct Found {
    report: Report,
    identity: Option<Origin>,
    state: Option<State>,
    /// Commits of the log beyond the watermark, up to its first damage.
    beyond: Vec<EncodedCommit>,
    /// Rows that were given up before.
    lost: u64,
}

fn read_through<R: Read>(
    store: &R,
    take: &mut dyn FnMut(RowKey, Row),
) -> Result<Found, StoreError> {
    let mut report = Report::default();
    let identity = kept(load_identity(store), "who the node is", &mut report.damaged_head)?;
    let identity = identity.flatten();
    if identity.is_none() && report.damaged_head.is_empty() {
        report.damaged_head.push(Finding {
            what: "who the node is".into(),
            why: "it is not in the journal".into(),
        });
    }
    let state =
        kept(State::load(store), "what the rows are the state of", &mut report.damaged_head)?;
    let state = state.flatten();
    report.watermark = state.as_ref().map_or(0, |state| state.position.0);
    let lost =
        kept(crate::space::load_lost(store), "the count of lost rows", &mut report.damaged_head)?;
    read_rows(store, &mut report, take)?;
    let vector = state.as_ref().map(|state| &state.vector);
    let beyond = read_log(store, &mut report, vector)?;
    Ok(Found { report, identity, state, beyond, lost: lost.unwrap_or(0) })
}

/// What was read, or a finding.
fn kept<T>(
    read: Result<T, StoreError>,
    what: &str,
    findings: &mut Vec<Finding>,
) -> Result<Option<T>, StoreError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Corrupt(why)) => {
            findings.push(Finding { what: what.into(), why });
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

fn read_rows<R: Read>(
    store: &R,
    report: &mut Report,
    take: &mut dyn FnMut(RowKey, Row),
) -> Result<(), StoreError> {
    let origins = kept(load_origins(store), "the table of origins", &mut report.damaged_head)?;
    let Some(origins) = origins else { return Ok(()) };
    let binding = [keys::BINDING];
    let bindings = keys::prefix_end(&binding);
    for (family, from, to) in [
        (Family::Keys, &[][..], &[][..]),
        (Family::Data, &[], &[]),
        (Family::FirstKeys, &[], &[]),
        (Family::FirstData, &[], &[]),
        (Family::System, &binding, &bindings),
    ] {
        let mut holes = Vec::new();
        let Report { rows, damaged_rows, .. } = report;
        scan_on(store, family, from, to, &mut holes, &mut |key, value| {
            match decode(family, key, value, &origins) {
                Ok(found) => {
                    *rows += 1;
                    found.into_iter().for_each(|(name, row)| take(name, row));
                }
                Err(error) => damaged_rows.push(undecoded(family, key, &error)),
            }
            ControlFlow::Continue(())
        })?;
        damaged_rows.extend(holes.iter().map(range));
    }
    Ok(())
}

fn read_log<R: Read>(
    store: &R,
    report: &mut Report,
    vector: Option<&VersionVector>,
) -> Result<Vec<EncodedCommit>, StoreError> {
    let floor = kept(read_floor(store), "where the log begins", &mut report.damaged_head)?;
    let (floor, mut reached) = floor.unwrap_or_default();
    let watermark = LogPosition(report.watermark);
    let mut end = floor;
    let (mut holes, mut beyond, mut broken) = (Vec::new(), Vec::new(), false);
    let damaged = &mut report.damaged_log;
    let from = keys::log(floor.next());
    let agrees = |at: LogPosition, reached: &VersionVector, damaged: &mut Vec<Finding>| {
        if at == watermark && vector.is_some_and(|vector| vector != reached) && damaged.is_empty() {
            damaged.push(Finding {
                what: format!("the log up to position {}", at.0),
                why: "it does not lead to the rows".into(),
            });
        }
    };
    agrees(end, &reached, damaged);
    scan_on(store, Family::Log, &from, &[], &mut holes, &mut |key, value| {
        let Some(last) = keys::split_log(key) else { return ControlFlow::Continue(()) };
        let entries = decode_row(value);
        let follows = entries.as_ref().is_ok_and(|it| last.0 == end.0 + it.len() as u64);
        if let (Ok(entries), true) = (&entries, follows) {
            for entry in entries {
                entry.advance(&mut reached);
            }
        } else {
            let from = end.next().0;
            broken = true;
            damaged.push(Finding {
                what: format!("the log, positions {from} to {}", last.0),
                why: entries.as_ref().map_or_else(ToString::to_string, |_| "a gap".into()),
            });
        }
        end = last;
        agrees(end, &reached, damaged);
        if last > watermark && !broken {
            beyond.extend(entries.into_iter().flatten().filter_map(|entry| match entry {
                LogEntry::Commit(commit) => Some(commit),
                LogEntry::Barrier(_) => None,
            }));
        }
        // Damage below the watermark is covered by the rows.
        broken &= last >= watermark;
        ControlFlow::Continue(())
    })?;
    for hole in &holes {
        let position =
            |key: &[u8]| keys::split_log(key).map_or("the end".into(), |it| it.0.to_string());
        damaged.push(Finding {
            what: format!("the log, positions {} to {}", position(&hole.from), position(&hole.to)),
            why: hole.why.clone(),
        });
    }
    if end < watermark {
        damaged.push(Finding {
            what: format!("the log, positions {} to {}", end.next().0, watermark.0),
            why: "it ends before".into(),
        });
    }
    report.log_end = end.0;
    Ok(beyond)
}

fn undecoded(family: Family, key: &[u8], error: &CodecError) -> Finding {
    Finding { what: name(family, key), why: error.to_string() }
}

fn range(hole: &Hole) -> Finding {
    let end = match hole.to.is_empty() {
        true => "the end".into(),
        false => name(hole.family, &hole.to),
    };
    let what = format!("from {} to {end}", name(hole.family, &hole.from));
    Finding { what, why: hole.why.clone() }
}

/// A stored key, for people.
pub fn name(family: Family, key: &[u8]) -> String {
    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    if let Some((family, key)) = keys::reordered(family, key) {
        return name(family, &key);
    }
    match family {
        Family::Keys => match keys::split_header(key) {
            Some((db, key)) => format!("key '{}' of db {db}", shown(key)),
            None => "the first key".into(),
        },
        Family::Data => match keys::split_slot(key) {
            Some((db, key, slot, member)) => {
                let part = if slot == HASH { "field" } else { "member" };
                format!("{part} '{}' of key '{}' of db {db}", shown(member), shown(key))
            }
            None => format!("a row at '{}'", shown(key)),
        },
        _ => format!("{family:?} row '{}'", shown(key)),
    }
}
