//! Convergence: nodes that have delivered the same are the same, at every moment.

use lattis_engine::causal::VersionVector;

use super::{Verdict, show};

/// Equal vectors mean equal digests, and different vectors different ones.
pub fn moment(nodes: &[(usize, &VersionVector, u128)]) -> Verdict {
    for (index, (a, vector, digest)) in nodes.iter().enumerate() {
        for (b, other, theirs) in &nodes[..index] {
            if (vector == other) != (digest == theirs) {
                return Err(format!(
                    "n{a} and n{b}: digests {digest:032x} and {theirs:032x} at {} and {}",
                    show(vector),
                    show(other)
                ));
            }
        }
    }
    Ok(())
}

/// In the end everybody shows the same.
pub fn finish(dumps: &[Vec<String>]) -> Verdict {
    for (site, dump) in dumps.iter().enumerate().skip(1) {
        if *dump != dumps[0] {
            let mine = dump.iter().filter(|line| !dumps[0].contains(line));
            let theirs = dumps[0].iter().filter(|line| !dump.contains(line));
            return Err(format!(
                "n{site} shows {:?}, n0 {:?}",
                mine.collect::<Vec<_>>(),
                theirs.collect::<Vec<_>>()
            ));
        }
    }
    Ok(())
}
