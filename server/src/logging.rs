//! The log for people: a line each with time, level and part, to the standard error or to a file.
//!
//! A line is written if that can be done at once and is left out otherwise: no reader of a pipe that has gone
//! or sleeps, and no full disk, ends or stops anything. What was left out is counted and told of by the next
//! line that can be written. Whoever has something to tell says so by `tracing`'s macros; nothing else in
//! the server writes to the standard output or error.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

/// What a pipe takes at once if it takes anything: a longer line is cut.
const LINE_BYTES: usize = 4096;
/// How long the last words of the process wait for others to finish their line.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What is told, in Redis's words. Each level holds those behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Everything.
    Debug,
    /// What is normal, too: connections that close, dials that fail again.
    Verbose,
    /// What an operator may want to know.
    #[default]
    Notice,
    /// What is wrong.
    Warning,
}

impl Level {
    fn filter(self) -> LevelFilter {
        match self {
            Level::Debug => LevelFilter::TRACE,
            Level::Verbose => LevelFilter::DEBUG,
            Level::Notice => LevelFilter::INFO,
            Level::Warning => LevelFilter::WARN,
        }
    }
}

/// Where lines go.
struct Output {
    /// The file that was named; without one, the standard error.
    file: Option<(PathBuf, File)>,
    /// Lines that could not be written since the last one that could.
    lost: u64,
}

static OUTPUT: Mutex<Output> = Mutex::new(Output { file: None, lost: 0 });
static FILTER: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts the log: to that file, which is appended to, or to the standard error if the path is empty. The
/// error is a line for the user; then nothing has changed.
pub fn start(path: &Path, level: Level) -> Result<(), String> {
    if !path.as_os_str().is_empty() {
        output().file = Some((path.to_owned(), open(path)?));
    }
    let (filter, handle) = reload::Layer::new(level.filter());
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines)
        .log_internal_errors(false)
        .with_writer(|| Line);
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    // Started twice, as in a test, the first one stays.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = FILTER.set(handle);
    }
    Ok(())
}

/// Changes what is told from now on.
pub fn set_level(level: Level) {
    if let Some(filter) = FILTER.get() {
        // It fails only without a subscriber.
        let _ = filter.modify(|it| *it = level.filter());
    }
}

/// Opens the file anew by its name, after it was moved away. If that fails the old one is written on.
pub fn reopen() {
    let Some(path) = output().file.as_ref().map(|(path, _)| path.clone()) else { return };
    match open(&path) {
        Ok(file) => {
            output().file = Some((path, file));
            tracing::info!("the log file was opened anew");
        }
        Err(why) => tracing::warn!("{why}; the file that was open is written on"),
    }
}

/// Writes a line of the end of the process, whatever state it is in: to the log, and to the standard error
/// if that is another place.
pub fn last_words(text: &str) {
    let started = Instant::now();
    let mut output = loop {
        match OUTPUT.try_lock() {
            Ok(output) => break Some(output),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => break Some(poisoned.into_inner()),
            // Perhaps this thread itself, in the middle of a line.
            Err(_) if started.elapsed() > LAST_WORDS => break None,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    if let Some(output) = &mut output
        && output.file.is_some()
    {
        let mut line = String::new();
        let _ = writeln!(line, "{} ERROR run: {text}", Timestamp(SystemTime::now()));
        output.write(line.into_bytes());
    }
    say(&format!("lattis-server: {text}"));
}

/// Writes a text to the standard error as it is, or not at all.
pub fn say(text: &str) {
    let _ = write_at_once(io::stderr().as_fd(), &mut io::stderr(), format!("{text}\n").as_bytes());
}

fn output() -> MutexGuard<'static, Output> {
    OUTPUT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> Result<File, String> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| format!("cannot open the log file {}: {error}", path.display()))
}

impl Output {
    fn write(&mut self, mut line: Vec<u8>) {
        one_line(&mut line);
        if self.lost > 0 {
            let mut before = String::new();
            let time = Timestamp(SystemTime::now());
            let _ = writeln!(before, "{time} WARN logging: lines were left out: {}", self.lost);
            if self.put(before.as_bytes()).is_ok() {
                self.lost = 0;
            }
        }
        if self.put(&line).is_err() {
            self.lost += 1;
        }
    }

    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        match &self.file {
            Some((_, file)) => write_at_once(file.as_fd(), &mut &*file, line),
            None => write_at_once(io::stderr().as_fd(), &mut io::stderr(), line),
        }
    }
}

/// Writes if the other side takes it now; an error otherwise.
fn write_at_once(fd: BorrowedFd<'_>, to: &mut impl Write, line: &[u8]) -> io::Result<()> {
    let mut ready = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut ready, Some(&at_once))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    to.write_all(line)
}

/// What peers and clients have sent may stand in a line: it stays one line, and not too long.
fn one_line(line: &mut Vec<u8>) {
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    line.truncate(LINE_BYTES - 1);
    line.iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b' ');
    line.push(b'\n');
}

/// What the subscriber writes a line to. It never fails.
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        output().write(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `2026-11-26T18:30:01.123Z INFO peers: text`
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let part = target.strip_prefix("lattis_server::").unwrap_or(target);
        write!(writer, "{} {level} {part}: ", Timestamp(SystemTime::now()))?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// A time of the wall clock as RFC 3339 has it, in UTC and with milliseconds.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, millis) = (since.as_secs(), since.subsec_millis());
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Year, month and day of a day counted from 1970-01-01, by the Gregorian calendar. Years are reckoned from
/// March, so that a leap day is a year's last (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(day: u64) -> (u64, u64, u64) {
    /// Days from 0000-03-01 to 1970-01-01.
    const SHIFT: u64 = 719_468;
    /// Days of 400 years, after which the calendar repeats itself.
    const ERA: u64 = 146_097;
    let (era, of_era) = ((day + SHIFT) / ERA, (day + SHIFT) % ERA);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(seconds: u64, millis: u64) -> String {
        Timestamp(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis)).to_string()
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(shown(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(951_782_399, 999), "2000-02-28T23:59:59.999Z");
        assert_eq!(shown(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(shown(1_709_251_199, 7), "2024-02-29T23:59:59.007Z");
        assert_eq!(shown(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(shown(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn what_others_say_stays_one_line() {
        let mut line = b"peer a\r\nfake: b\x1b[0m\n".to_vec();
        one_line(&mut line);
        assert_eq!(line, b"peer a  fake: b [0m\n");
        let mut long = vec![b'x'; 3 * LINE_BYTES];
        one_line(&mut long);
        assert_eq!(long.len(), LINE_BYTES);
    }

    /// A pipe whose reader does not read takes what it has room for and then nothing, at once; one whose
    /// reader has gone takes nothing; a full device takes nothing.
    #[test]
    fn nothing_waits_and_nothing_fails() {
        let (reader, writer) = io::pipe().unwrap();
        let line = [b'x'; LINE_BYTES];
        let put = || write_at_once(writer.as_fd(), &mut &writer, &line);
        let taken = (0..10_000).take_while(|_| put().is_ok()).count();
        assert!((1..1000).contains(&taken), "{taken} lines");
        drop(reader);
        assert_eq!(put().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        if let Ok(full) = File::options().write(true).open("/dev/full") {
            let mut output = Output { file: Some((PathBuf::new(), full)), lost: 0 };
            output.write(b"a\n".to_vec());
            output.write(b"b\n".to_vec());
            assert_eq!(output.lost, 2);
        }
    }
}
