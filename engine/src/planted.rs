//! Faults of the model, each a rule of docs/model.md left out at one point, for the simulator to find.
//!
//! The engine asks at the point of each rule; the answers are here, so that the product's code carries a
//! line per rule and nothing else. Only with the feature `planted`, which no release has.

use crate::causal::{Dot, Hlc, Millis, Origin, Stamp, VersionVector};
use crate::commit::{Commit, Delta, EncodedCommit};
use crate::row::{CounterEntry, Row, Sibling};
use crate::store::{Family, Run, Store, keys};

/// Which rule is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Planted {
    /// None.
    #[default]
    None,
    /// M4: a start keeps the old incarnation, though the crash may have taken some of its dots.
    IncarnationReused,
    /// M4: an incarnation has a number and no nonce, so a restored disk gives it again.
    IncarnationWithoutNonce,
    /// M2: sums and resets are joined by the larger value instead of the newer dot.
    CounterByValue,
    /// M2: an entry is dropped as soon as its increments are reset, though its origin may go on.
    ResidueDroppedAtOnce,
    /// M2: a bulk clear resets counters by its context alone.
    ClearContextOnly,
    /// M3: a bulk clear takes what its node had not seen.
    ClearTakesUnseen,
    /// M3: a db is cleared as a whole though it has what the clear has not seen.
    WholeClearTakesUnseen,
    /// M2: a db that is cleared as a whole keeps no residue of counters.
    WholeClearDropsResidue,
    /// M8: only the command that creates a slot writes its birth.
    BirthByCreatorOnly,
    /// M1: SADD of a member that is there takes no dot.
    PresentMemberTakesNoDot,
    /// R3: what arrives last wins, and the siblings go.
    ArrivalOrderWins,
    /// M6: a joined state adds what this node has removed, and removes nothing.
    TransferResurrects,
    /// L2: the vector of a generation is written before its rows.
    VectorWithoutRows,
    /// L2: a generation is written in two parts, the second with the watermark.
    GenerationInParts,
    /// L2: rows that change while a generation is taken are part of the next one only.
    ChangedWhileTaken,
    /// D5: a view that is being built takes changes of what is still to be read.
    BuildTakesUnread,
    /// D5: a view that is being built takes no changes.
    BuildTakesNothing,
    /// M9: views take a change per dot and not per element.
    ViewPerDot,
    /// M7: every node removes what is due by its own clock, newer writes too.
    ExpiryByLocalClock,
    /// M7: deadlines are judged by the hybrid clock.
    DeadlineByStamp,
    /// M7: a commit does not tell how far its stamp is ahead of its writer's wall clock.
    LeadNotTold,
    /// M7: what a deadline has hidden is shown again when the clock steps back.
    ShownAgain,
    /// R7: a transaction of several rows is two commits.
    MultiSplit,
    /// M10: stamps of commits from elsewhere do not move the clock.
    StampsNotObserved,
    /// M10: a joined state does not move the clock, though what was removed may be stamped later than its
    /// rows.
    JoinedClockNotObserved,
    /// L4: a tick that cannot be written leaves its vector behind.
    FailedTickKeepsVector,
}

impl Planted {
    /// All faults.
    pub const ALL: [Planted; 26] = [
        Planted::IncarnationReused,
        Planted::IncarnationWithoutNonce,
        Planted::CounterByValue,
        Planted::ResidueDroppedAtOnce,
        Planted::ClearContextOnly,
        Planted::ClearTakesUnseen,
        Planted::WholeClearTakesUnseen,
        Planted::WholeClearDropsResidue,
        Planted::BirthByCreatorOnly,
        Planted::PresentMemberTakesNoDot,
        Planted::ArrivalOrderWins,
        Planted::TransferResurrects,
        Planted::VectorWithoutRows,
        Planted::GenerationInParts,
        Planted::ChangedWhileTaken,
        Planted::BuildTakesUnread,
        Planted::BuildTakesNothing,
        Planted::ViewPerDot,
        Planted::ExpiryByLocalClock,
        Planted::DeadlineByStamp,
        Planted::LeadNotTold,
        Planted::ShownAgain,
        Planted::MultiSplit,
        Planted::StampsNotObserved,
        Planted::JoinedClockNotObserved,
        Planted::FailedTickKeepsVector,
    ];

    pub(crate) fn reopened(self, old: Option<Origin>, new: Origin) -> Origin {
        match old {
            Some(old) if self == Planted::IncarnationReused => old,
            _ if self == Planted::IncarnationWithoutNonce => Origin { nonce: 0, ..new },
            _ => new,
        }
    }

    /// After an effect was applied to a row.
    pub(crate) fn applied(self, old: &Row, row: &mut Row, delta: &Delta, dot: Dot) {
        let (siblings, counters) = row.parts();
        match self {
            Planted::CounterByValue => by_value(old, counters),
            Planted::ResidueDroppedAtOnce => counters.retain(CounterEntry::is_live),
            Planted::ArrivalOrderWins if delta.put.is_some() => {
                siblings.retain(|sibling: &mut Sibling| sibling.dot == dot);
            }
            _ => {}
        }
    }

    /// After a bulk clear was applied to a row.
    pub(crate) fn cleared(self, row: &mut Row, context: &VersionVector, dot: Dot) {
        let (siblings, counters) = row.parts();
        if self == Planted::ClearTakesUnseen {
            siblings.clear();
        }
        if self == Planted::ClearContextOnly {
            for entry in counters.iter_mut().filter(|it| it.last <= context.get(&it.origin)) {
                entry.reset_last = entry.last;
                entry.reset_sum = entry.sum;
                entry.reset_dot = Some(dot);
            }
        }
    }

    /// After two states of a row were joined.
    pub(crate) fn joined(self, mine: &Row, theirs: &Row, mut row: Row) -> Row {
        let (siblings, counters) = row.parts();
        match self {
            Planted::CounterByValue => {
                by_value(mine, counters);
                by_value(theirs, counters);
            }
            Planted::TransferResurrects => {
                for sibling in mine.siblings().iter().chain(theirs.siblings()) {
                    if !siblings.iter().any(|there| there.dot == sibling.dot) {
                        siblings.push(sibling.clone());
                    }
                }
                siblings.sort_by_key(|sibling| std::cmp::Reverse((sibling.stamp.hlc, sibling.dot)));
            }
            _ => {}
        }
        row
    }

    /// Before a generation is written: its state record, or half of its rows, goes first.
    pub(crate) fn frozen<S: Store>(self, run: &mut Run, store: &S) {
        let mut first = Run::default();
        match self {
            Planted::VectorWithoutRows => {
                let is_state = |stored: &[u8]| stored.get(1..) == Some(keys::STATE);
                let state = run.changes().find(|(stored, _)| is_state(stored));
                let Some((_, Some(state))) = state else { return };
                first.put(Family::System, keys::STATE, &state.whole());
            }
            Planted::GenerationInParts => first = run.take_half(),
            _ => return,
        }
        // A failing disk is not what this is about.
        let _ = store.write_run(&mut first);
    }

    /// Whether a page may change of which a generation that is being taken lacks rows.
    pub(crate) fn changes_what_is_taken(self) -> bool {
        self == Planted::ChangedWhileTaken
    }

    /// Whether a view that is being built takes a change, of what was read or not.
    pub(crate) fn takes(self, is_read: bool) -> bool {
        match self {
            Planted::BuildTakesUnread => true,
            Planted::BuildTakesNothing => false,
            _ => is_read,
        }
    }

    /// What views are told of a changed member.
    pub(crate) fn per_dot(self, old: &Row, new: &Row) -> Option<i64> {
        let weight = |row: &Row| row.siblings().len() as i64;
        (self == Planted::ViewPerDot).then(|| weight(new) - weight(old))
    }

    /// By which time deadlines are judged.
    pub(crate) fn now(self, wall: Millis, clock: Hlc) -> Millis {
        if self == Planted::DeadlineByStamp { wall.max(clock.millis()) } else { wall }
    }

    /// Which stamp a commit bears.
    pub(crate) fn told(self, stamp: Stamp) -> Stamp {
        if self == Planted::LeadNotTold { Stamp::from(stamp.hlc) } else { stamp }
    }

    /// What is hidden, of what should be.
    pub(crate) fn hidden(self, hidden: Millis, now: Millis) -> Millis {
        if self == Planted::ShownAgain && hidden >= now { Millis(0) } else { hidden }
    }

    /// Up to which time a passed deadline removes.
    pub(crate) fn end(self, end: Millis) -> Millis {
        if self == Planted::ExpiryByLocalClock { Millis(u64::MAX) } else { end }
    }

    /// Which stamp of a commit the clock sees.
    pub(crate) fn stamp(self, hlc: Hlc) -> Hlc {
        if self == Planted::StampsNotObserved { Hlc(0) } else { hlc }
    }

    /// Which clock of a joined state the clock sees.
    pub(crate) fn joined_clock(self, hlc: Hlc) -> Hlc {
        if self == Planted::JoinedClockNotObserved { Hlc(0) } else { hlc }
    }

    /// Which vector an undone tick leaves.
    pub(crate) fn undone(self, before: VersionVector, now: &VersionVector) -> VersionVector {
        if self == Planted::FailedTickKeepsVector { now.clone() } else { before }
    }

    /// A commit, or its two halves.
    pub(crate) fn split(self, encoded: EncodedCommit) -> Vec<EncodedCommit> {
        match Commit::decode(&encoded) {
            Ok(commit) if self == Planted::MultiSplit && commit.effects.len() > 1 => {
                let (one, two) = commit.effects.split_at(commit.effects.len() / 2);
                let half = |first, effects: &[_]| {
                    Commit { first, effects: effects.to_vec(), ..commit }.encode()
                };
                vec![half(commit.first, one), half(commit.first + one.len() as u64, two)]
            }
            _ => vec![encoded],
        }
    }
}

fn by_value(other: &Row, counters: &mut [CounterEntry]) {
    for entry in counters {
        if let Some(other) = other.entry(&entry.origin)
            && other.generation == entry.generation
        {
            entry.sum = entry.sum.max(other.sum);
            entry.reset_sum = entry.reset_sum.max(other.reset_sum);
        }
    }
}
