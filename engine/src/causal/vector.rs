//! The version vector: a causally closed set of dots, as one number per origin.

use std::collections::BTreeMap;

use super::{Dot, Origin};
use crate::codec::{CodecError, Reader, Writer};

/// Every dot up to a seq, for each origin. Origins at 0 are absent, so equality is equality of sets.
///
/// Vectors are a lattice under [`join`](VersionVector::join). In this system they rest only on the
/// ends of commits: half a commit is never covered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VersionVector(BTreeMap<Origin, u64>);

impl VersionVector {
    /// The empty set of dots.
    pub fn new() -> VersionVector {
        VersionVector::default()
    }

    /// The highest seq of `origin` in the set, 0 if none.
    pub fn get(&self, origin: &Origin) -> u64 {
        self.0.get(origin).copied().unwrap_or(0)
    }

    /// Whether the dot is in the set.
    pub fn contains(&self, dot: &Dot) -> bool {
        dot.seq <= self.get(&dot.origin)
    }

    /// Whether every dot of `other` is in the set.
    pub fn covers(&self, other: &VersionVector) -> bool {
        other.0.iter().all(|(origin, seq)| *seq <= self.get(origin))
    }

    /// Adds all dots of `origin` up to `seq`; true if that added any.
    pub fn advance(&mut self, origin: Origin, seq: u64) -> bool {
        if seq == 0 {
            return false;
        }
        let mine = self.0.entry(origin).or_insert(0);
        let grows = seq > *mine;
        if grows {
            *mine = seq;
        }
        grows
    }

    /// The union of both sets; true if this one grew.
    pub fn join(&mut self, other: &VersionVector) -> bool {
        let mut grew = false;
        for (origin, seq) in &other.0 {
            grew |= self.advance(*origin, *seq);
        }
        grew
    }

    /// Dots of this set that are not in `other`, counted.
    pub fn missing_from(&self, other: &VersionVector) -> u64 {
        self.0.iter().map(|(origin, seq)| seq.saturating_sub(other.get(origin))).sum()
    }

    /// Origins and their highest seqs, in the order of origins.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Origin, u64)> {
        self.0.iter().map(|(origin, seq)| (origin, *seq))
    }

    /// The number of origins.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no dot is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends a count and, for each origin in order, its 20 bytes and its seq.
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.0.len() as u64);
        for (origin, seq) in &self.0 {
            out.origin(origin);
            out.varint(*seq);
        }
    }

    /// Reads what [`encode`](VersionVector::encode) wrote. Allocates no more than the input's size.
    pub fn decode(input: &mut Reader<'_>) -> Result<VersionVector, CodecError> {
        let count = input.count(Origin::LEN + 1)?;
        let mut vector = BTreeMap::new();
        for _ in 0..count {
            let origin = input.origin()?;
            let seq = input.varint()?;
            if seq == 0 || vector.insert(origin, seq).is_some() {
                return Err(CodecError::Invalid("version vector"));
            }
        }
        Ok(VersionVector(vector))
    }
}

impl FromIterator<(Origin, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Origin, u64)>>(entries: I) -> VersionVector {
        let mut vector = VersionVector::new();
        for (origin, seq) in entries {
            vector.advance(origin, seq);
        }
        vector
    }
}
