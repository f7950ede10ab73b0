//! Counters: one record each, of which INFO and metrics are two prints.

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Connections accepted.
    Connections,
    /// Commands run.
    Commands,
    /// Bytes read from clients.
    InputBytes,
    /// Bytes written to clients.
    OutputBytes,
    /// Connections refused because of `maxclients`.
    Rejected,
    /// Reads that found their key.
    Hits,
    /// Reads that did not.
    Misses,
    /// Replies that were errors.
    Errors,
    /// Clients disconnected because their replies piled up.
    OutputDisconnects,
    /// Clients disconnected because their requests piled up.
    InputDisconnects,
    /// Batches written.
    Ticks,
    /// Batches that could not be written.
    FailedTicks,
    /// Commits of peers that were applied.
    RemoteCommits,
}

/// One counter's name and meaning.
#[derive(Debug)]
pub struct CounterRecord {
    /// What it is in the program.
    pub counter: Counter,
    /// What INFO calls it.
    pub name: &'static str,
    /// What it counts, in a line.
    pub help: &'static str,
}

const fn record(counter: Counter, name: &'static str, help: &'static str) -> CounterRecord {
    CounterRecord { counter, name, help }
}

/// All counters, in the order of INFO.
pub static COUNTERS: [CounterRecord; 13] = [
    record(Counter::Connections, "total_connections_received", "connections accepted"),
    record(Counter::Commands, "total_commands_processed", "commands run"),
    record(Counter::InputBytes, "total_net_input_bytes", "bytes read from clients"),
    record(Counter::OutputBytes, "total_net_output_bytes", "bytes written to clients"),
    record(Counter::Rejected, "rejected_connections", "connections above maxclients"),
    record(Counter::Hits, "keyspace_hits", "reads that found their key"),
    record(Counter::Misses, "keyspace_misses", "reads that did not find their key"),
    record(Counter::Errors, "total_error_replies", "replies that were errors"),
    record(
        Counter::OutputDisconnects,
        "client_output_buffer_limit_disconnections",
        "clients disconnected because their replies piled up",
    ),
    record(
        Counter::InputDisconnects,
        "client_query_buffer_limit_disconnections",
        "clients disconnected because their requests piled up",
    ),
    record(Counter::Ticks, "lattis_ticks", "batches written"),
    record(Counter::FailedTicks, "lattis_failed_ticks", "batches that could not be written"),
    record(Counter::RemoteCommits, "lattis_remote_commits", "commits of peers applied"),
];

/// The counts of one process.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    counts: [u64; COUNTERS.len()],
}

impl Stats {
    /// Counts `by` more.
    pub fn add(&mut self, counter: Counter, by: u64) {
        if let Some(count) = self.counts.get_mut(counter as usize) {
            *count = count.wrapping_add(by);
        }
    }

    /// The count.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts.get(counter as usize).copied().unwrap_or(0)
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&mut self) {
        *self = Stats::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_place() {
        let mut stats = Stats::default();
        for (place, record) in COUNTERS.iter().enumerate() {
            assert_eq!(record.counter as usize, place, "{}", record.name);
            stats.add(record.counter, 2);
            assert_eq!(stats.get(record.counter), 2);
        }
        stats.reset();
        assert_eq!(stats.get(Counter::Commands), 0);
    }
}
