//! The version vector: a causally closed set of dots, as one number per origin.
//!
//! Every tick keeps its vector from before, every seal tells it, every link compares it; and there may be
//! thousands of origins. So it is a persistent map (Bagwell, "Fast and Space Efficient Trie Searches", 2000,
//! and its kin): a copy shares everything, a change copies the path to it, comparing passes over what is
//! shared, and a small vector is looked up in a large one.

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::{Dot, Origin};
use crate::codec::{CodecError, Reader, Writer};

/// Every dot up to a seq, for each origin. Origins at 0 are absent, so equality is equality of sets.
///
/// Vectors are a lattice under [`join`](VersionVector::join). In this system they rest only on the
/// ends of commits: half a commit is never covered.
///
/// A copy costs O(1). Comparing and joining cost what differs, where one was made from a copy of the other
/// or [leans](VersionVector::lean_on) on it, or the other is small.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VersionVector(OrdMap<Origin, u64>);

/// One vector is looked up in another that has so many times its origins.
const FEW: usize = 8;

/// What the second of two has more of.
fn ahead(item: DiffItem<'_, '_, Origin, u64>) -> Option<(Origin, u64)> {
    match item {
        DiffItem::Add(origin, seq) => Some((*origin, *seq)),
        DiffItem::Update { old: (_, old), new: (origin, seq) } if seq > old => {
            Some((*origin, *seq))
        }
        DiffItem::Update { .. } | DiffItem::Remove(..) => None,
    }
}

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
        self.lacks(other).next().is_none()
    }

    /// Origins of `other` that it has more of, with its seqs.
    fn lacks(&self, other: &VersionVector) -> impl Iterator<Item = (Origin, u64)> {
        // A comparison passes over what both share, but meets all that only this one has.
        let few = other.len() < self.len() / FEW;
        let looked_up = few.then(|| other.iter().filter(|(origin, seq)| *seq > self.get(origin)));
        let compared = (!few).then(|| self.0.diff(&other.0).filter_map(ahead));
        let looked_up = looked_up.into_iter().flatten().map(|(origin, seq)| (*origin, seq));
        looked_up.chain(compared.into_iter().flatten())
    }

    /// The part of this set that is not in `other`, by origins: joined to `other` it makes it cover this one.
    pub fn news_for(&self, other: &VersionVector) -> VersionVector {
        other.lacks(self).collect()
    }

    /// The same set, sharing with `other` what both have alike: from now on comparing them costs what
    /// differs. Cost: once as much as both of them, unless they share already.
    pub fn lean_on(&mut self, other: &VersionVector) {
        let mut same = other.0.clone();
        for item in other.0.diff(&self.0) {
            match item {
                DiffItem::Add(origin, seq) | DiffItem::Update { new: (origin, seq), .. } => {
                    same.insert(*origin, *seq);
                }
                DiffItem::Remove(origin, _) => {
                    same.remove(origin);
                }
            }
        }
        self.0 = same;
    }

    /// Adds all dots of `origin` up to `seq`; true if that added any.
    pub fn advance(&mut self, origin: Origin, seq: u64) -> bool {
        let grows = seq > self.get(&origin);
        if grows {
            self.0.insert(origin, seq);
        }
        grows
    }

    /// The union of both sets; true if this one grew.
    pub fn join(&mut self, other: &VersionVector) -> bool {
        let news: Vec<(Origin, u64)> = self.lacks(other).collect();
        if news.is_empty() {
            return false;
        }
        match other.covers(self) {
            // From now on they share everything.
            true => self.0 = other.0.clone(),
            false => self.0.extend(news),
        }
        true
    }

    /// Dots of this set that are not in `other`, counted.
    pub fn missing_from(&self, other: &VersionVector) -> u64 {
        other.lacks(self).map(|(origin, seq)| seq - other.get(&origin)).sum()
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
        let mut vector = OrdMap::new();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::NodeId;

    fn origin(node: u64) -> Origin {
        Origin { node: NodeId(node), ..Origin::default() }
    }

    /// Two that follow each other share all of it but the way to what differs, however many origins there
    /// are.
    #[test]
    fn who_follows_shares() {
        let mut ahead: VersionVector = (1..=20_000).map(|node| (origin(node), node)).collect();
        let mut behind = ahead.clone();
        for seq in 20_001..20_100 {
            assert!(ahead.advance(origin(seq % 7 + 1), seq));
            assert!(ahead.covers(&behind) && !behind.covers(&ahead));
            assert_eq!(ahead.news_for(&behind).len(), 1);
            assert!(behind.join(&ahead) && !behind.join(&ahead));
            assert!(behind.0.ptr_eq(&ahead.0));
        }
        // Neither covers the other.
        ahead.advance(origin(1), 30_000);
        behind.advance(origin(2), 30_000);
        let mut both = behind.clone();
        assert!(both.join(&ahead) && both.covers(&behind) && both.covers(&ahead));
        assert_eq!(both.missing_from(&behind), 30_000 - behind.get(&origin(1)));
    }

    /// What is told in small parts is looked up, however many origins there are: a million of 20,000 each
    /// would take minutes. And one that leans on another shares with it.
    #[test]
    fn few_are_looked_up() {
        let ahead: VersionVector = (1..=20_000).map(|node| (origin(node), node)).collect();
        let mut apart: VersionVector = (1..=20_002).map(|node| (origin(node), 1)).collect();
        for seq in 1..1_000_000 {
            let news = [(origin(seq % 20_000 + 1), 2), (origin(30_000), seq)].into_iter().collect();
            assert!(apart.join(&news) && apart.covers(&news));
        }
        let mut leaning = apart.clone();
        leaning.lean_on(&ahead);
        assert_eq!(leaning, apart);
        assert!(leaning.0.diff(&apart.0).next().is_none());
        let mut near = ahead.clone();
        near.advance(origin(7), 30_000);
        let mut leaning: VersionVector = near.iter().map(|(origin, seq)| (*origin, seq)).collect();
        leaning.lean_on(&ahead);
        for seq in 30_001..1_000_000 {
            near.advance(origin(7), seq);
            assert!(near.covers(&leaning) && near.missing_from(&leaning) == seq - 30_000);
        }
    }
}
