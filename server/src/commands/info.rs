//! INFO: a record for each field, in the order in which they are shown.
//!
//! A field tells what was counted or measured. What is not known is not there: its function gives nothing,
//! and programs that read INFO find the same as with a Redis that lacks the field. A number of things that
//! this server never has (replicas, evictions, channels) is 0 because it is.

use std::time::{SystemTime, UNIX_EPOCH};

use super::connection::REDIS_VERSION;
use lattis_replication::PeerInfo;

use super::{Call, CommandError, CommandResult, OnKey};
use crate::session::Session;
use crate::stats::{COUNTERS, CounterRecord, Rate};
use crate::usage::{self, Memory};
use crate::world::World;

/// What INFO without an argument shows, and what shows more than that in Redis.
const ALL: [&str; 3] = ["default", "all", "everything"];

/// What fields are made of.
struct Facts<'c, 'a, 't> {
    call: &'c mut Call<'a, 't>,
    memory: Memory,
}

impl Facts<'_, '_, '_> {
    fn world(&self) -> &World {
        self.call.world
    }

    fn uptime(&self) -> u64 {
        let world = self.world();
        world.instant.saturating_duration_since(world.started).as_secs()
    }

    /// Something of all peers, as they were at the last heartbeat.
    fn peers<T: ToString>(
        &self,
        of: impl FnOnce(&mut dyn Iterator<Item = &PeerInfo>) -> T,
    ) -> Shown {
        let peers = self.world().port.peers();
        shown(of(&mut peers.iter()))
    }

    fn clients(&self) -> impl Iterator<Item = &Session> {
        let others = self.world().clients.others().map(|(_, conn)| &conn.session);
        others.chain([&*self.call.session])
    }
}

/// What a field's function gives: `None` if it is not known.
type Shown = Option<String>;

/// The functions of fields.
enum Show {
    /// One field of that name.
    Field(&'static str, fn(&Facts<'_, '_, '_>) -> Shown),
    /// Several, whose names are not known before.
    Lines(fn(&mut Facts<'_, '_, '_>) -> Result<Vec<String>, CommandError>),
}

use Show::{Field, Lines};

/// Whether a peer is connected.
fn active(peer: &PeerInfo) -> bool {
    matches!(peer.state, "active" | "clock")
}

fn shown(value: impl ToString) -> Shown {
    Some(value.to_string())
}

/// The sections in order, with their fields.
const SECTIONS: &[(&str, &[Show])] = &[
    (
        "Server",
        &[
            Field("redis_version", |_| shown(REDIS_VERSION)),
            Field("lattis_version", |_| shown(env!("CARGO_PKG_VERSION"))),
            Field("redis_mode", |_| shown("standalone")),
            Field("os", |_| usage::operating_system()),
            Field("arch_bits", |_| shown(usize::BITS)),
            Field("multiplexing_api", |_| shown("epoll")),
            Field("process_id", |_| shown(std::process::id())),
            Field("run_id", |it| shown(&it.world().run_id)),
            Field("tcp_port", |it| shown(it.world().config.port)),
            Field("server_time_usec", |_| shown(unix_micros())),
            Field("uptime_in_seconds", |it| shown(it.uptime())),
            Field("uptime_in_days", |it| shown(it.uptime() / 86_400)),
            Field("hz", |_| shown(1000 / crate::tick::CRON.as_millis())),
            Field("executable", |_| Some(std::env::current_exe().ok()?.display().to_string())),
            Field("node_name", |it| shown(&it.world().config.node_name)),
            Field("node_id", |it| shown(it.world().facts.origin.node)),
            Field("incarnation", |it| shown(it.world().facts.origin.incarnation)),
        ],
    ),
    (
        "Clients",
        &[
            Field("connected_clients", |it| shown(it.clients().count())),
            Field("cluster_connections", |_| shown(0)),
            Field("maxclients", |it| shown(it.world().config.maxclients)),
            Field("client_recent_max_input_buffer", |it| {
                shown(it.clients().map(|client| client.sizes.input).max().unwrap_or(0))
            }),
            Field("client_recent_max_output_buffer", |it| {
                shown(it.clients().map(|client| client.sizes.output).max().unwrap_or(0))
            }),
            Field("blocked_clients", |it| shown(it.world().clients.blocked())),
            Field("tracking_clients", |_| shown(0)),
        ],
    ),
    (
        "Memory",
        &[
            Field("used_memory", |it| shown(it.memory.used())),
            Field("used_memory_human", |it| shown(human(it.memory.used()))),
            Field("used_memory_rss", |_| shown(usage::resident()?)),
            Field("used_memory_rss_human", |_| shown(human(usage::resident()?))),
            Field("used_memory_peak", |it| shown(it.world().memory_peak)),
            Field("used_memory_peak_human", |it| shown(human(it.world().memory_peak))),
            Field("used_memory_peak_perc", |it| {
                let (used, peak) = (it.memory.used() as f64, it.world().memory_peak as f64);
                shown(format!("{:.2}%", used / peak.max(1.0) * 100.0))
            }),
            Field("used_memory_startup", |it| shown(it.memory.startup)),
            Field("total_system_memory", |_| shown(usage::memory_of_machine()?)),
            Field("total_system_memory_human", |_| shown(human(usage::memory_of_machine()?))),
            Field("maxmemory", |_| shown(0)),
            Field("maxmemory_human", |_| shown("0B")),
            Field("maxmemory_policy", |_| shown("noeviction")),
            Field("mem_clients_normal", |it| shown(it.memory.clients)),
            Field("lattis_mem_rows", |it| shown(it.memory.engine.rows)),
            Field("lattis_mem_pinned", |it| shown(it.memory.engine.pinned)),
            Field("lattis_mem_lists", |it| shown(it.memory.engine.lists)),
            Field("lattis_mem_log_index", |it| shown(it.memory.engine.log_index)),
            Field("lattis_mem_memtables", |it| shown(it.memory.store.memtables)),
            Field("lattis_mem_blocks", |it| shown(it.memory.store.blocks)),
            Field("lattis_mem_tables", |it| shown(it.memory.store.tables)),
            Field("lattis_mem_outbox", |it| shown(it.memory.outbox)),
            Field("lattis_rss_peak", |_| shown(usage::resident_peak()?)),
        ],
    ),
    (
        "Persistence",
        &[
            Field("loading", |_| shown(0)),
            Field("async_loading", |_| shown(0)),
            Field("rdb_bgsave_in_progress", |_| shown(0)),
            Field("aof_enabled", |_| shown(1)),
            Field("aof_rewrite_in_progress", |_| shown(0)),
            Field("aof_last_write_status", |it| {
                shown(if it.world().refuse_writes.is_none() { "ok" } else { "err" })
            }),
            Field("lattis_health", |it| shown(it.world().health.state())),
            Field("lattis_lost_rows", |it| shown(it.call.txn.engine().lost_rows())),
            Field("lattis_damaged_ranges", |it| shown(it.world().health.damaged_ranges()?)),
            Field("lattis_files_are_merged", |it| shown(u8::from(it.world().health.merges()))),
            Field("lattis_log_bytes", |it| shown(it.call.txn.engine().log_bytes())),
            Field("lattis_disk_bytes", |it| shown(usage::bytes_in(&it.world().config.dir)?)),
        ],
    ),
    (
        "Stats",
        &[
            Lines(|it| {
                let stats = &it.world().stats;
                let line = |record: &CounterRecord| {
                    format!("{}:{}", record.name, stats.get(record.counter))
                };
                Ok(COUNTERS.iter().map(line).collect())
            }),
            Field("instantaneous_ops_per_sec", |it| {
                shown(it.world().rates.get(Rate::Commands).round())
            }),
            Field("instantaneous_input_kbps", |it| {
                shown(format!("{:.2}", it.world().rates.get(Rate::Input) / 1024.0))
            }),
            Field("instantaneous_output_kbps", |it| {
                shown(format!("{:.2}", it.world().rates.get(Rate::Output) / 1024.0))
            }),
            Field("expired_keys", |it| {
                let expired = it.call.txn.engine().expired_keys();
                shown(expired.saturating_sub(it.world().stats.expired_before))
            }),
            Field("evicted_keys", |_| shown(0)),
            Field("pubsub_channels", |_| shown(0)),
            Field("pubsub_patterns", |_| shown(0)),
        ],
    ),
    (
        "Replication",
        &[
            Field("role", |_| shown("master")),
            Field("connected_slaves", |_| shown(0)),
            Field("lattis_log_position", |it| shown(it.call.txn.engine().position().0)),
            Field("digest", |it| Some(format!("{:032x}", it.world().facts.digest()))),
            Field("lattis_peers_active", |it| {
                it.peers(|peers| peers.filter(|it| active(it)).count())
            }),
            Field("lattis_peers_held_by_clock", |it| {
                it.peers(|peers| peers.filter(|it| it.clock_held.is_some()).count())
            }),
            Field("lattis_lag_commits", |it| {
                it.peers(|it| it.map(|it| it.lag_commits).max().unwrap_or(0))
            }),
            Field("lattis_lag_ms", |it| it.peers(|it| it.map(|it| it.lag_ms).max().unwrap_or(0))),
            Field("lattis_behind_commits", |it| {
                it.peers(|it| it.map(|it| it.behind_commits).max().unwrap_or(0))
            }),
            Field("lattis_state_receiving_bytes", |it| {
                it.peers(|it| it.filter_map(|it| it.receiving).sum::<u64>())
            }),
            Field("lattis_state_sending_bytes", |it| {
                it.peers(|it| it.filter_map(|it| it.sending).sum::<u64>())
            }),
            Field("lattis_log_held_too_long", |it| {
                shown(u8::from(it.call.txn.engine().log_let_go()))
            }),
            Field("lattis_clock_lead_ms", |it| {
                let clock = it.call.txn.engine().clock().millis().0;
                shown(clock.saturating_sub(it.world().now.0))
            }),
            Field("lattis_clock_fenced", |it| shown(u8::from(it.world().clock_fenced.is_some()))),
        ],
    ),
    (
        "CPU",
        &[
            Field("used_cpu_sys", |_| usage::cpu_seconds(1)),
            Field("used_cpu_user", |_| usage::cpu_seconds(0)),
            Field("used_cpu_sys_children", |_| usage::cpu_seconds(3)),
            Field("used_cpu_user_children", |_| usage::cpu_seconds(2)),
        ],
    ),
    (
        "Errorstats",
        &[Lines(|it| {
            let errors = it.world().stats.errors();
            Ok(errors.map(|(code, count)| format!("errorstat_{code}:count={count}")).collect())
        })],
    ),
    ("Cluster", &[Field("cluster_enabled", |_| shown(0))]),
    (
        "Dataflow",
        &[
            Field("bindings", |it| shown(it.call.txn.engine().active_bindings())),
            Field("bindings_building", |it| shown(it.call.txn.engine().views_building())),
            Field("bindings_failed_evaluations", |it| {
                shown(it.call.txn.engine().failed_evaluations())
            }),
        ],
    ),
    (
        "Keyspace",
        &[Lines(|it| {
            let mut lines = Vec::new();
            for db in 0..it.world().config.databases {
                let keys = it.call.txn.db_size(db).on(b"")?;
                if keys > 0 {
                    let (expires, left) = it.call.txn.engine().expires(db, it.world().now);
                    lines.push(format!("db{db}:keys={keys},expires={expires},avg_ttl={}", left.0));
                }
            }
            Ok(lines)
        })],
    ),
];

pub(super) fn info(call: &mut Call<'_, '_>) -> CommandResult {
    let args = call.args;
    let wanted = |section: &str| {
        let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        args.len() == 1
            || args.from(1).any(|word| is(word, section) || ALL.iter().any(|all| is(word, all)))
    };
    let memory = Memory::measure(call.txn.engine(), call.world);
    call.world.memory_peak = call.world.memory_peak.max(memory.used());
    let mut facts = Facts { call, memory };
    let mut text = String::new();
    for (section, fields) in SECTIONS.iter().filter(|(section, _)| wanted(section)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        text.push_str(&format!("# {section}\r\n"));
        for field in *fields {
            match field {
                Field(name, show) => {
                    if let Some(value) = show(&facts) {
                        text.push_str(&format!("{name}:{value}\r\n"));
                    }
                }
                Lines(show) => {
                    for line in show(&mut facts)? {
                        text.push_str(&format!("{line}\r\n"));
                    }
                }
            }
        }
    }
    call.reply.verbatim(text.as_bytes());
    Ok(())
}

/// Microseconds since 1970.
pub(super) fn unix_micros() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

/// A size as Redis shows it to people.
fn human(bytes: u64) -> String {
    let units = [(1u64 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match units.into_iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.2}{unit}", bytes as f64 / size as f64),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(12), "12B");
        assert_eq!(human(2_027_536), "1.93M");
    }
}
