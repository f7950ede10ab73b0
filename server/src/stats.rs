//! Counters: one record each, of which INFO and metrics are two prints.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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

/// Codes of errors that are counted apart; what comes after that many is counted in the sum alone.
const ERROR_CODES: usize = 128;

/// The counts of one process.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    counts: [u64; COUNTERS.len()],
    /// Error replies by their first word.
    errors: BTreeMap<String, u64>,
    /// Keys that had expired when the counts began.
    pub expired_before: u64,
}

impl Stats {
    /// Counts `by` more.
    pub fn add(&mut self, counter: Counter, by: u64) {
        if let Some(count) = self.counts.get_mut(counter as usize) {
            *count = count.wrapping_add(by);
        }
    }

    /// Counts an error reply.
    pub fn error(&mut self, line: &[u8]) {
        self.add(Counter::Errors, 1);
        let code = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let code = String::from_utf8_lossy(code);
        if let Some(count) = self.errors.get_mut(&*code) {
            *count += 1;
        } else if self.errors.len() < ERROR_CODES {
            self.errors.insert(code.into_owned(), 1);
        }
    }

    /// The error replies by their first word.
    pub fn errors(&self) -> impl Iterator<Item = (&str, u64)> {
        self.errors.iter().map(|(code, count)| (code.as_str(), *count))
    }

    /// The count.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts.get(counter as usize).copied().unwrap_or(0)
    }

    /// CONFIG RESETSTAT, when so many keys have expired since the start.
    pub fn reset(&mut self, expired: u64) {
        *self = Stats { expired_before: expired, ..Stats::default() };
    }
}

/// What is shown per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Commands run.
    Commands,
    /// Bytes read from clients.
    Input,
    /// Bytes written to clients.
    Output,
}

/// Samples that a rate is the mean of, as many as Redis takes.
const SAMPLES: usize = 16;
/// The counters of rates, by their numbers.
const RATES: [Counter; 3] = [Counter::Commands, Counter::InputBytes, Counter::OutputBytes];

/// How much was done per second of late.
#[derive(Clone, Debug)]
pub struct Rates {
    samples: [[f64; RATES.len()]; SAMPLES],
    next: usize,
    counts: [u64; RATES.len()],
    taken: Instant,
}

impl Rates {
    /// Nothing was done.
    pub fn new(now: Instant) -> Rates {
        Rates { samples: Default::default(), next: 0, counts: Default::default(), taken: now }
    }

    /// Takes a sample, if `period` has passed since the last one.
    pub fn sample(&mut self, stats: &Stats, now: Instant, period: Duration) {
        let passed = now.saturating_duration_since(self.taken);
        if passed < period {
            return;
        }
        let counts = RATES.map(|counter| stats.get(counter));
        let mut sample = [0.0; RATES.len()];
        for ((rate, count), before) in sample.iter_mut().zip(counts).zip(self.counts) {
            *rate = count.saturating_sub(before) as f64 / passed.as_secs_f64();
        }
        if let Some(place) = self.samples.get_mut(self.next % SAMPLES) {
            *place = sample;
        }
        (self.next, self.counts, self.taken) = ((self.next + 1) % SAMPLES, counts, now);
    }

    /// The mean of the last samples.
    pub fn get(&self, rate: Rate) -> f64 {
        let of = |sample: &[f64; RATES.len()]| sample.get(rate as usize).copied().unwrap_or(0.0);
        self.samples.iter().map(of).sum::<f64>() / SAMPLES as f64
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
        stats.reset(7);
        assert_eq!((stats.get(Counter::Commands), stats.expired_before), (0, 7));
    }

    #[test]
    fn errors_are_counted_by_their_code_and_codes_are_bounded() {
        let mut stats = Stats::default();
        for number in 0..1000 {
            stats.error(b"ERR syntax error");
            stats.error(format!("CODE{number} x").as_bytes());
        }
        assert_eq!(stats.get(Counter::Errors), 2000);
        assert_eq!(stats.errors().count(), ERROR_CODES);
        assert!(stats.errors().any(|error| error == ("ERR", 1000)));
    }

    #[test]
    fn rates_are_means_of_the_last_samples() {
        let start = Instant::now();
        let period = Duration::from_millis(100);
        let mut stats = Stats::default();
        let mut rates = Rates::new(start);
        for step in 1..=20u32 {
            stats.add(Counter::Commands, 50);
            rates.sample(&stats, start + period * step, period);
            // Too early for another one.
            rates.sample(&stats, start + period * step, period);
        }
        assert!((rates.get(Rate::Commands) - 500.0).abs() < 0.001);
        assert!(rates.get(Rate::Input).abs() < 0.001);
        stats.reset(0);
        for step in 21..=36u32 {
            rates.sample(&stats, start + period * step, period);
        }
        assert!(rates.get(Rate::Commands).abs() < 0.001);
    }
}
