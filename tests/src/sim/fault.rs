//! Bugs planted on purpose: each a rule of the model left out at one point.

#[cfg(feature = "planted")]
use lattis_engine::planted::Planted as InEngine;
#[cfg(feature = "planted")]
use lattis_replication::Planted as InReplication;

/// What is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// A rule of the engine.
    #[cfg(feature = "planted")]
    Engine(InEngine),
    /// A rule of replication.
    #[cfg(feature = "planted")]
    Replication(InReplication),
}

#[cfg(feature = "planted")]
impl Fault {
    /// All of them.
    pub fn all() -> Vec<Fault> {
        let links = [
            InReplication::ActivateFromNow,
            InReplication::DropFromQueue,
            InReplication::AppliedOnArrival,
            InReplication::NoBarrier,
            InReplication::StaleKnowledge,
            InReplication::OrderIgnored,
            InReplication::RefusalRestoresNothing,
            InReplication::TimersByWallClock,
        ];
        let engine = InEngine::ALL.into_iter().map(Fault::Engine);
        engine.chain(links.into_iter().map(Fault::Replication)).collect()
    }

    pub(super) fn engine(self) -> InEngine {
        match self {
            Fault::Engine(fault) => fault,
            _ => InEngine::None,
        }
    }

    pub(super) fn replication(self) -> Option<InReplication> {
        match self {
            Fault::Replication(fault) => Some(fault),
            _ => None,
        }
    }
}
