//! Durability: what was synced survives every crash, what was written survives a kill, what a crash
//! takes is a suffix, and what any node still has in fair weather is in the end everywhere.

use lattis_engine::causal::{Origin, VersionVector};
use lattis_engine::commit::LogEntry;

use super::{History, Shadow, Tally, Verdict, causality, show};

/// Everything written so far is on the disk.
pub fn synced(shadow: &mut Shadow) {
    shadow.durable = shadow.position;
    shadow.states = shadow.states.split_off(&shadow.position);
    shadow.states.insert(shadow.position, shadow.vector.clone());
}

/// A node has started over what its store holds: `log` is read back, up to `position`. `kept`: the crash
/// took nothing. `lost` is the writer of the life before.
pub fn reopened(
    history: &mut History,
    shadow: &mut Shadow,
    lost: &Origin,
    vector: &VersionVector,
    position: u64,
    log: &[LogEntry],
    kept: bool,
) -> Verdict {
    let before = shadow.position;
    if position < shadow.durable || (kept && position < before) {
        return Err(format!(
            "the log ends at {position}: {} were synced, {before} written",
            shadow.durable
        ));
    }
    if position > before {
        // The tick of which nobody knew was written.
        let more = (position - before) as usize;
        let entries = log.get(log.len().saturating_sub(more)..).unwrap_or_default().to_vec();
        let mut tally = Tally {
            ran: std::mem::take(&mut shadow.doubtful),
            claims: std::mem::take(&mut shadow.claimed),
        };
        causality::sealed(history, shadow, lost, &entries, &mut tally)?;
    }
    shadow.doubtful.clear();
    shadow.claimed.clear();
    let Some(state) = shadow.states.get(&position) else {
        return Err(format!("the log ends at {position}, where it has never been"));
    };
    if state != vector {
        return Err(format!(
            "at position {position} was {}, after the start {}",
            show(state),
            show(vector)
        ));
    }
    let mut replayed = VersionVector::new();
    for entry in log {
        match entry {
            LogEntry::Barrier(barrier) => {
                replayed.join(barrier);
            }
            LogEntry::Commit(commit) => {
                history.given.see(commit)?;
                causality::deliver(history, &mut replayed, commit)?;
            }
        }
    }
    if replayed != *vector {
        return Err(format!(
            "the log leads to {}, the vector is {}",
            show(&replayed),
            show(vector)
        ));
    }
    shadow.vector = replayed;
    shadow.position = position;
    let _ = shadow.states.split_off(&(position + 1));
    Ok(())
}

/// In the end every node has all that any node had when the weather became fair.
pub fn finish(owed: &VersionVector, shadows: &[Shadow]) -> Verdict {
    for (site, shadow) in shadows.iter().enumerate() {
        if !shadow.vector.covers(owed) {
            return Err(format!(
                "n{site} ends with {}, owed are {}",
                show(&shadow.vector),
                show(owed)
            ));
        }
    }
    Ok(())
}
