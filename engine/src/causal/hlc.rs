//! Hybrid logical clocks (Kulkarni, Demirbas, Madappa, Avva, Leone: "Logical Physical Clocks", 2014).

use std::fmt;

/// Wall-clock time in milliseconds since 1970. Always an argument, never read here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// The year 2200, in milliseconds: no stamp and no wall clock is later.
const LATEST: Millis = Millis(7_258_118_400_000);

/// When something was written, by two clocks (MODEL M7): the hybrid one orders, and nothing else; the
/// writer's wall clock is what deadlines are judged by. The hybrid clock is never behind the wall clock of
/// its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Orders.
    pub hlc: Hlc,
    /// What the writer's wall clock showed.
    pub written: Millis,
}

impl Stamp {
    /// A stamp made at a wall time. A wall clock ahead of the stamp, which cannot be, counts as equal to it.
    pub fn new(hlc: Hlc, wall: Millis) -> Stamp {
        Stamp { hlc, written: wall.min(hlc.millis()) }
    }

    /// How far the hybrid clock was ahead of the wall clock, in ms: usually 0.
    pub fn lead(self) -> u64 {
        self.hlc.millis().0.saturating_sub(self.written.0)
    }

    /// The stamp of a hybrid clock that was that far ahead.
    pub fn with_lead(hlc: Hlc, lead: u64) -> Stamp {
        Stamp { hlc, written: Millis(hlc.millis().0.saturating_sub(lead)) }
    }
}

/// A clock that is not ahead of its wall clock.
impl From<Hlc> for Stamp {
    fn from(hlc: Hlc) -> Stamp {
        Stamp { hlc, written: hlc.millis() }
    }
}

/// A hybrid timestamp: 48 bits of milliseconds and a 16-bit counter. Causally later is always larger,
/// and it stays close to wall time. Equal stamps of two origins are ordered by the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first stamp of a millisecond.
    pub fn at(time: Millis) -> Hlc {
        Hlc(time.0.min((1 << 48) - 1) << 16)
    }

    /// Whether a stamp can have been made: not beyond the year 2200.
    pub fn is_sane(self) -> bool {
        self.millis() <= LATEST
    }

    /// The last stamp of a millisecond: `hlc <= Hlc::end_of(t)` says "stamped at t or before".
    pub fn end_of(time: Millis) -> Hlc {
        Hlc(Hlc::at(time).0 | 0xffff)
    }

    /// The millisecond of the stamp.
    pub fn millis(self) -> Millis {
        Millis(self.0 >> 16)
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// The clock of one node: never behind what it has stamped or seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// A clock that has stamped or seen everything up to `last`.
    pub fn resume(last: Hlc) -> HlcClock {
        HlcClock { last }
    }

    /// The largest stamp made or seen.
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// A stamp larger than all stamps made or seen, and not before `wall`. Taken once it is
    /// [observed](HlcClock::observe).
    pub fn peek(&self, wall: Millis) -> Hlc {
        Hlc::at(wall).max(Hlc(self.last.0.saturating_add(1)))
    }

    /// Takes note of a stamp made here or elsewhere.
    pub fn observe(&mut self, seen: Hlc) {
        self.last = self.last.max(seen);
    }
}
