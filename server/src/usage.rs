//! What the process holds of memory, disk and processor, for INFO.
//!
//! Memory is told apart by what it is for, as far as the parts keep account of it; the kernel tells what
//! there is in all. What cannot be found out is `None`.

use std::path::Path;

use lattis_engine::MemoryUse;
use lattis_engine::store::RocksMemory;

use crate::data::Engine;
use crate::world::World;

/// Memory by purpose, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The process before it had opened its data.
    pub startup: u64,
    /// Decoded rows and what finds them.
    pub engine: MemoryUse,
    /// RocksDB's part.
    pub store: RocksMemory,
    /// Requests, replies and queues of clients.
    pub clients: u64,
    /// Entries that wait for the peers' thread.
    pub outbox: u64,
}

impl Memory {
    /// Measures. Cost: what is not yet written, and the clients.
    pub fn measure(engine: &Engine, world: &World) -> Memory {
        Memory {
            startup: world.memory_startup,
            engine: engine.memory(),
            store: engine.store().memory(),
            clients: world.clients.others().map(|(_, conn)| conn.session.sizes.memory as u64).sum(),
            outbox: world.port.outbox_bytes() as u64,
        }
    }

    /// All of it; rows that are pinned are rows too.
    pub fn used(&self) -> u64 {
        let Memory { startup, engine, store, clients, outbox } = self;
        startup
            + engine.rows
            + engine.lists
            + engine.log_index
            + store.memtables
            + store.blocks
            + store.tables
            + clients
            + outbox
    }
}

/// A number of kilobytes in a file of the kernel, in bytes.
fn kilobytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Memory of the process in bytes.
pub fn resident() -> Option<u64> {
    kilobytes("/proc/self/status", "VmRSS")
}

/// The most that it has been.
pub fn resident_peak() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM")
}

/// Memory of the machine in bytes.
pub fn memory_of_machine() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemTotal")
}

/// The kernel's name, release and machine.
pub fn operating_system() -> Option<String> {
    let word = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
        Some(text.trim().to_owned())
    };
    Some(format!("{} {} {}", word("ostype")?, word("osrelease")?, std::env::consts::ARCH))
}

/// Time that the processor has spent for this process, in seconds: user, system, and both again for its
/// children.
pub fn cpu_seconds(which: usize) -> Option<String> {
    /// What Linux counts such times in, on every machine: a hundredth of a second.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit(") ").next()?.split(' ').skip(11);
    let ticks = fields.nth(which)?.parse::<f64>().ok()?;
    Some(format!("{:.6}", ticks / TICKS))
}

/// Bytes that the files of a directory and of those in it take on the disk.
pub fn bytes_in(directory: &Path) -> Option<u64> {
    let mut sum = 0;
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).ok()?.flatten() {
            // A file may go while it is looked at.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            }
            sum += std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        }
    }
    Some(sum)
}

/// Bytes that a process like this one may still write to the file system of a directory.
pub fn free_on_disk(directory: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(directory).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        assert!(resident().unwrap() > 1 << 20);
        assert!(resident_peak().unwrap() >= resident().unwrap() / 2);
        assert!(memory_of_machine().unwrap() > resident().unwrap());
        assert!(operating_system().unwrap().starts_with("Linux "));
        for which in 0..4 {
            assert!(cpu_seconds(which).unwrap().parse::<f64>().unwrap() >= 0.0);
        }
        assert!(bytes_in(Path::new("src")).unwrap() > 0);
        assert_eq!(bytes_in(Path::new("nowhere")), None);
        assert!(free_on_disk(Path::new("src")).unwrap() > 0);
        assert_eq!(free_on_disk(Path::new("nowhere")), None);
    }
}
