//! Views, counts and digest are what would be computed anew from the rows.

use lattis_engine::Engine;
use lattis_engine::store::MemStore;

use super::Verdict;

/// Asks the engine's own specification.
pub fn check(engine: &mut Engine<MemStore>) -> Verdict {
    // What is told of memory is reckoned from the same pages.
    engine.memory();
    engine.verify()
}
