//! Unique dots: an (origin, seq) names one effect for ever, whatever was lost and opened again.

use std::collections::BTreeMap;

use lattis_engine::causal::Origin;
use lattis_engine::commit::EncodedCommit;

use super::Verdict;

/// Every run of dots that was ever seen: its last seq, and a fingerprint of its body.
#[derive(Debug, Default)]
pub struct Given(BTreeMap<(Origin, u64), (u64, u64)>);

/// FNV-1a.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Given {
    /// Looks at a commit, wherever it appears.
    pub fn see(&mut self, commit: &EncodedCommit) -> Verdict {
        let now = (commit.last, fingerprint(&commit.body));
        let known = *self.0.entry((commit.origin, commit.first)).or_insert(now);
        if known == now {
            return Ok(());
        }
        let dot = commit.first_dot();
        Err(format!("{dot} was given twice: {known:x?} and {now:x?} (last seq, fingerprint)"))
    }
}
