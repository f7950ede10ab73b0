//! Hybrid logical clocks (Kulkarni, Demirbas, Madappa, Avva, Leone: "Logical Physical Clocks", 2014).

use std::fmt;

/// Wall-clock time in milliseconds since 1970. Always an argument, never read here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// A hybrid timestamp: 48 bits of milliseconds and a 16-bit counter. Causally later is always larger,
/// and it stays close to wall time. Equal stamps of two origins are ordered by the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first stamp of a millisecond.
    pub fn at(time: Millis) -> Hlc {
        Hlc(time.0.min((1 << 48) - 1) << 16)
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
        Hlc::at(wall).max(Hlc(self.last.0 + 1))
    }

    /// Takes note of a stamp made here or elsewhere.
    pub fn observe(&mut self, seen: Hlc) {
        self.last = self.last.max(seen);
    }
}
