//! `--check` and `--repair`: a directory that no server has open is read through, or made anew of what can be
//! read in it.

use std::fs;
use std::path::{Path, PathBuf};

use lattis_engine::Fresh;
use lattis_engine::causal::NodeId;
use lattis_engine::repair::{self, Report};
use lattis_engine::store::{RocksOptions, RocksStore};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use crate::tick::wall_clock;

/// What was found, for people.
#[derive(Debug)]
pub struct Outcome {
    /// Lines.
    pub text: String,
    /// Whether there is nothing in the directory, as it is now, that cannot be read.
    pub whole: bool,
}

/// Reads everything in a directory and names what cannot be read. Changes nothing. The error is a line.
pub fn check(directory: &Path) -> Result<Outcome, String> {
    let tails = RocksStore::torn_tails(directory).map_err(|error| refused(directory, &error))?;
    let store = RocksStore::open_read_only(directory, &RocksOptions::default())
        .map_err(|error| refused(directory, &error))?;
    let report = repair::examine(&store).map_err(|error| refused(directory, &error))?;
    let mut text = summary(&report);
    for (file, bytes) in tails {
        text.push_str(&format!(
            "the last {bytes} bytes of {file} are not whole: a start drops them, as after a crash\n"
        ));
    }
    report.findings().for_each(|finding| text.push_str(&format!("damaged: {finding}\n")));
    text.push_str(if report.is_whole() { "all of it can be read\n" } else { HINT });
    Ok(Outcome { text, whole: report.is_whole() })
}

const HINT: &str = "see 'Damaged files' in docs/operations.md for what to do\n";

/// Makes a directory anew of what can be read in it. The old one is kept beside it. Memory: the rows. The
/// error is a line; then the directory is as it was.
pub fn repair(directory: &Path) -> Result<Outcome, String> {
    let path = directory.canonicalize().map_err(|error| refused(directory, &error))?;
    let beside = |word: &str| {
        let mut name = path.clone().into_os_string();
        name.push(word);
        PathBuf::from(name)
    };
    let (made, kept) = (beside(".repaired"), beside(".damaged"));
    for taken in [&made, &kept] {
        if taken.exists() {
            return Err(format!("{} is in the way: move it elsewhere", taken.display()));
        }
    }
    let report = rescue(&path, &made).inspect_err(|_| {
        // What is half done is of no use to anybody.
        let _ = fs::remove_dir_all(&made);
    })?;
    let mut text = summary(&report);
    report.findings().for_each(|finding| text.push_str(&format!("dropped: {finding}\n")));
    let list = made.join(".dropped");
    fs::write(&list, &text).map_err(|error| refused(&list, &error))?;
    fs::rename(&path, &kept).map_err(|error| refused(&path, &error))?;
    fs::rename(&made, &path).map_err(|error| refused(&made, &error))?;
    text.push_str(&format!(
        "{} can be started; what it was is in {}, what was dropped in {}\n",
        path.display(),
        kept.display(),
        path.join(".dropped").display()
    ));
    if !report.damaged_rows.is_empty() {
        text.push_str(
            "rows were lost: if this node has peers, start it with an empty directory instead, and it \
             receives everything from them\n",
        );
    }
    Ok(Outcome { text, whole: true })
}

fn rescue(path: &Path, made: &Path) -> Result<Report, String> {
    let options = RocksOptions::default();
    let from = RocksStore::open_read_only(path, &options).map_err(|error| refused(path, &error))?;
    let to = RocksStore::open(made, &options).map_err(|error| refused(made, &error))?;
    let mut random = ChaCha20Rng::from_os_rng();
    let fresh = Fresh { node: NodeId(random.next_u64()), nonce: random.next_u64() };
    let rescued = repair::rescue(&from, to, fresh, wall_clock());
    rescued.map_err(|error| refused(path, &error))
}

fn summary(report: &Report) -> String {
    let Report { rows, watermark, log_end, .. } = report;
    format!("{rows} rows can be read, of log position {watermark}; the log ends at {log_end}\n")
}

fn refused(path: &Path, error: &impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
