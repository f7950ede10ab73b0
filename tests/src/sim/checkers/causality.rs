//! Causal order: nothing is delivered before all that its writer had seen, and nothing is left out.

use lattis_engine::causal::{Dot, VersionVector};
use lattis_engine::commit::{EncodedCommit, LogEntry};

use super::{History, Known, Shadow, Tally, Verdict, show};

/// A node has sealed entries. `own`: entries of this writer that are new are minted by this.
pub fn sealed(
    history: &mut History,
    shadow: &mut Shadow,
    own: &lattis_engine::causal::Origin,
    entries: &[LogEntry],
    tally: &mut Tally,
) -> Verdict {
    let mut claims = std::mem::take(&mut tally.claims).into_iter();
    for entry in entries {
        match entry {
            LogEntry::Commit(commit) => {
                history.given.see(commit)?;
                match commit.origin == *own {
                    true => history.minted(commit, &shadow.vector, &mut tally.ran)?,
                    // Clients come first in a tick: what they did and no commit has is undone again.
                    false => tally.ran.clear(),
                }
                deliver(history, &mut shadow.vector, commit)?;
            }
            LogEntry::Barrier(vector) => {
                let Some(claim) = claims.next() else {
                    return Err("a barrier was sealed that no transfer explains".into());
                };
                shadow.vector.join(&claim);
                if shadow.vector != *vector {
                    return Err(format!(
                        "a state was joined to {}, but all that both had is {}",
                        show(vector),
                        show(&shadow.vector)
                    ));
                }
            }
        }
        shadow.position += 1;
        shadow.states.insert(shadow.position, shadow.vector.clone());
    }
    Ok(())
}

/// Delivers one commit to a vector.
pub fn deliver(history: &History, vector: &mut VersionVector, commit: &EncodedCommit) -> Verdict {
    let dot = commit.first_dot();
    let Some(known) = history.commits.get(&(commit.origin, commit.last)) else {
        return Err(format!("{dot} was never minted"));
    };
    let have = vector.get(&commit.origin);
    if commit.first != have + 1 || known.first != commit.first {
        return Err(format!("{dot} was delivered after seq {have} of its origin"));
    }
    if !vector.covers(&known.causes) {
        return Err(format!(
            "{dot} was delivered without its causes {}: only {} is there",
            show(&known.causes),
            show(vector)
        ));
    }
    vector.advance(commit.origin, commit.last);
    Ok(())
}

/// A commit's stamp is larger than those of all its causes.
pub fn stamp(history: &History, dot: &Dot, known: &Known) -> Verdict {
    for (origin, seq) in known.causes.iter() {
        if let Some(cause) = history.newest(origin, seq)
            && cause.hlc >= known.hlc
        {
            return Err(format!(
                "{dot} is stamped {}, its cause {origin}:{seq} {}",
                known.hlc, cause.hlc
            ));
        }
    }
    Ok(())
}
