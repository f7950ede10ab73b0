//! The allocator, and how memory goes back to the system.
//!
//! An allocator keeps what was freed for what may come, and lets go of it while it is used. A node that has
//! been busy and then rests would keep its peak for ever. So the engine's thread looks once a second at what
//! the process holds beyond what it can account for ([`Ebb`]), and when that is much, has it given back:
//! mimalloc's by each thread for itself, since each has its own, and that of the system's allocator, which is
//! RocksDB's.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times that memory was given back: who has done so less often has not followed.
static TIMES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// Bytes beyond what is in use that are never too many.
const SPARE: u64 = 8 << 20;
/// Looks at which memory was in vain before it is: what a busy node has freed it will soon need again.
const RESTS: usize = 3;
/// Looks after which what has stayed is tried again.
const AGAIN: u32 = 60;

/// What is held beyond what is in use, from look to look.
#[derive(Debug, Default)]
pub struct Ebb {
    /// What could not be given back.
    stays: u64,
    /// Looks since.
    looks: u32,
    /// What was held in vain at the last ones.
    last: [u64; RESTS],
}

impl Ebb {
    /// Whether to give memory back, when the process holds `resident` bytes and can account for `used`. What
    /// has stayed the last time is too scattered to go, and is not tried again at once: each try takes time.
    pub fn is_due(&mut self, resident: u64, used: u64) -> bool {
        self.last.rotate_left(1);
        self.last[RESTS - 1] = resident.saturating_sub(used);
        let beyond = self.last.into_iter().min().unwrap_or(0);
        self.looks = self.looks.saturating_add(1);
        let much = SPARE + used / 16;
        beyond > much && (beyond > self.stays + SPARE / 2 || self.looks > AGAIN)
    }

    /// Memory was given back, and so much is still held.
    pub fn gave(&mut self, resident: u64, used: u64) {
        *self = Ebb { stays: resident.saturating_sub(used), ..Ebb::default() };
    }
}

/// Gives back what this thread has freed, and lets the others do so when they pass [`follow`]. Cost: grows
/// with the memory in use; milliseconds for a gigabyte.
pub fn give_back() {
    let times = TIMES.fetch_add(1, Ordering::Relaxed) + 1;
    DONE.set(times);
    collect();
    trim();
}

/// Gives back what this thread has freed, if another one has since the last time.
pub fn follow() {
    let times = TIMES.load(Ordering::Relaxed);
    if DONE.replace(times) != times {
        collect();
    }
}

#[cfg(feature = "mimalloc")]
fn collect() {
    #[allow(unsafe_code)]
    mod mimalloc {
        unsafe extern "C" {
            /// <https://microsoft.github.io/mimalloc/group__extended.html>
            pub(super) safe fn mi_collect(force: bool);
        }
    }
    mimalloc::mi_collect(true);
}

#[cfg(not(feature = "mimalloc"))]
fn collect() {}

#[cfg(target_env = "gnu")]
fn trim() {
    #[allow(unsafe_code)]
    mod glibc {
        unsafe extern "C" {
            /// malloc_trim(3): works on all arenas, from any thread.
            pub(super) safe fn malloc_trim(keep: usize) -> i32;
        }
    }
    glibc::malloc_trim(0);
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn what_stays_is_not_tried_at_every_look() {
        let mut ebb = Ebb::default();
        let due = |ebb: &mut Ebb, resident: u64| {
            (0..RESTS).map(|_| ebb.is_due(resident * MB, 100 * MB)).collect::<Vec<_>>()
        };
        assert_eq!(due(&mut ebb, 105), [false; RESTS], "little is kept");
        assert_eq!(due(&mut ebb, 500), [false, false, true], "it is not soon needed again");
        ebb.gave(300 * MB, 100 * MB);
        assert_eq!(due(&mut ebb, 300), [false; RESTS], "tried just now");
        assert_eq!(due(&mut ebb, 310), [false, false, true], "more was freed");
        assert!((0..AGAIN).any(|_| ebb.is_due(300 * MB, 100 * MB)), "not given up");
    }
}
