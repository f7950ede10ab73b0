//! Wall clocks of peers (MODEL M10): who is ahead of whom, and by how much.
//!
//! A hybrid clock takes over the largest stamp that it sees, so one clock that is far ahead would carry all
//! others with it. A commit that is stamped further ahead than the bound therefore waits on the link that
//! brings it; and a node that is itself ahead of most of its peers stops writing until the clocks agree.

use std::collections::BTreeMap;

use lattis_engine::causal::{Hlc, Millis, NodeId};

/// What a node knows of clocks.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// Stamps up to here are taken from a peer by the operator's word.
    accepted: BTreeMap<NodeId, Hlc>,
    /// How far this node is ahead of the median of its peers, while it is fenced for that, ms.
    pub fenced: Option<u64>,
}

impl Clocks {
    /// The latest stamp that may be taken from a peer at a wall time.
    pub fn bound(&self, wall: Millis, drift: Millis, peer: NodeId) -> Hlc {
        let bound = Hlc::end_of(Millis(wall.0.saturating_add(drift.0)));
        bound.max(self.accepted.get(&peer).copied().unwrap_or_default())
    }

    /// Takes from a peer all that is not stamped further ahead of `stamp` than the bound allows.
    pub fn accept(&mut self, peer: NodeId, stamp: Hlc, drift: Millis) {
        let until = Hlc::end_of(Millis(stamp.millis().0.saturating_add(drift.0)));
        let accepted = self.accepted.entry(peer).or_default();
        *accepted = until.max(*accepted);
    }

    /// Judges this node's own clock by how far those of its peers are ahead of it. `Some` if the verdict
    /// has changed.
    pub fn judge(&mut self, mut ahead: Vec<i64>, drift: Millis) -> Option<Option<u64>> {
        ahead.sort_unstable();
        let behind = |at: usize| ahead.get(at).map_or(0, |by| by.saturating_neg());
        // Of an even number the smaller lead counts: half of the peers may be wrong with this node.
        let lead = if ahead.len() < 2 { 0 } else { behind(ahead.len() / 2) };
        let lead = u64::try_from(lead).unwrap_or(0);
        let verdict = (lead > drift.0 / 2).then_some(lead);
        let changed = verdict.is_some() != self.fenced.is_some();
        self.fenced = verdict;
        changed.then_some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_the_median_of_two_or_more() {
        let drift = Millis(60_000);
        for (ahead, lead) in [
            (vec![], None),
            (vec![-7_200_000], None),
            (vec![-7_200_000, -7_200_010], Some(7_200_000)),
            (vec![-7_200_000, 0], None),
            (vec![-7_200_000, -7_100_000, 0], Some(7_100_000)),
            (vec![-7_200_000, 0, 5], None),
            (vec![-30_000, -30_000], None),
            (vec![-30_001, -30_001], Some(30_001)),
            (vec![7_200_000, 7_200_000], None),
        ] {
            let mut clocks = Clocks::default();
            clocks.judge(ahead.clone(), drift);
            assert_eq!(clocks.fenced, lead, "{ahead:?}");
        }
    }

    #[test]
    fn a_verdict_is_told_when_it_changes() {
        let mut clocks = Clocks::default();
        let drift = Millis(1000);
        assert_eq!(clocks.judge(vec![-600, -700], drift), Some(Some(600)));
        assert_eq!(clocks.judge(vec![-610, -700], drift), None);
        assert_eq!(clocks.judge(vec![0, 0], drift), Some(None));
    }

    #[test]
    fn an_operator_accepts_stamps_of_one_peer() {
        let mut clocks = Clocks::default();
        let (wall, drift, peer) = (Millis(1_000), Millis(10), NodeId(1));
        let far = Hlc::at(Millis(9_000));
        assert!(far > clocks.bound(wall, drift, peer));
        clocks.accept(peer, far, drift);
        assert!(far <= clocks.bound(wall, drift, peer));
        assert!(far > clocks.bound(wall, drift, NodeId(2)));
    }
}
