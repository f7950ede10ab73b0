//! The rules of the house that a machine can check, as ordinary tests.
//!
//! A rule is one function over the [`Tree`] of all files; [`RULES`] lists them. What it returns says
//! what to do instead. Rules look at code with its strings and comments taken out, so that speaking of
//! a thing is not using it. Each rule is shown to fail by a planted breach in this file's tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Macros that end the thread when nobody reads what they print.
const PRINTING: &[&str] = &["println!", "print!", "eprintln!", "eprint!", "dbg!"];

/// Files that may contain `unsafe`, each with its reason.
pub const UNSAFE_FILES: &[(&str, &str)] =
    &[("server/src/allocator.rs", "calls of two allocators that give memory back")];

/// Longest line of Rust and shell.
const LINE_LENGTH_MAX: usize = 110;

/// Longest file of Rust.
const FILE_LENGTH_MAX: usize = 1200;

/// What replication may use of the engine; under `commit` only what is listed.
const ENGINE_FOR_REPLICATION: &[&str] = &[
    "causal",
    "codec",
    "commit::EncodedCommit",
    "commit::LogEntry",
    "commit::MAX_EFFECTS",
    "transfer::state_clock",
];

/// Modules of the standard library that reach out of a program.
const OUTSIDE: &[&str] = &["time", "net", "fs", "thread", "io", "env", "process", "os"];

/// The only file of the engine and replication that does I/O.
const IO_FILE: &str = "engine/src/store/rocks.rs";

/// One line of Rust.
#[derive(Debug, Default)]
struct Line {
    /// Without comments, and with strings emptied.
    code: String,
    /// The comment's text.
    comment: String,
    /// Within a `#[cfg(test)]` module.
    in_test: bool,
}

/// One file.
#[derive(Debug)]
pub struct Source {
    /// From the top of the repository.
    path: String,
    text: String,
    lines: Vec<Line>,
}

/// All files of the repository that people write.
#[derive(Debug)]
pub struct Tree {
    files: Vec<Source>,
    /// Every path, folders too: what a link may point to.
    paths: BTreeSet<String>,
}

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Breach {
    /// File, and line where there is one.
    pub place: String,
    /// What to do instead.
    pub advice: String,
}

/// A rule's name and its function.
pub type Rule = (&'static str, fn(&Tree) -> Vec<Breach>);

/// All rules.
pub const RULES: &[Rule] = &[
    ("crates point one way", crates_point_one_way),
    ("replication knows the engine's vocabulary only", replication_knows_the_vocabulary_only),
    ("only the server has an event loop", only_the_server_has_an_event_loop),
    ("engine and replication are pure", engine_and_replication_are_pure),
    ("no hash order in deterministic code", no_hash_order),
    ("unsafe is listed", unsafe_is_listed),
    ("panics have reasons", panics_have_reasons),
    ("the server tells by its log", the_server_tells_by_its_log),
    ("files say what they are for", files_say_what_they_are_for),
    ("lines are short", lines_are_short),
    ("files are short", files_are_short),
    ("nothing is left for later", nothing_is_left_for_later),
    ("no path of one machine", no_path_of_one_machine),
    ("column families are documented", column_families_are_documented),
    ("commands are documented", commands_are_documented),
    ("links lead somewhere", links_lead_somewhere),
    ("rules that are named are written", rules_that_are_named_are_written),
];

impl Tree {
    /// Reads the repository below that folder.
    pub fn read(top: &Path) -> std::io::Result<Tree> {
        let mut files = Vec::new();
        let mut paths = BTreeSet::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(top.join(&folder))? {
                let entry = entry?;
                let relative = folder.join(entry.file_name());
                let path = relative.to_string_lossy().into_owned();
                if [".git", "target", "data"].contains(&path.as_str()) {
                    continue;
                }
                paths.insert(path.clone());
                if entry.file_type()?.is_dir() {
                    folders.push(relative);
                } else if let Ok(text) = fs::read_to_string(top.join(&relative)) {
                    files.push(Source::new(&path, &text));
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Tree { files, paths })
    }

    /// A repository of those files.
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let paths = files.iter().map(|(path, _)| path.to_string()).collect();
        let files = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        Tree { files, paths }
    }

    fn under<'a>(&'a self, folders: &'a [&str]) -> impl Iterator<Item = &'a Source> {
        self.rust().filter(|file| folders.iter().any(|folder| file.path.starts_with(folder)))
    }

    fn rust(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|file| file.is("rs"))
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }

    fn all_docs(&self) -> String {
        let docs = self.files.iter().filter(|file| file.path.starts_with("docs/") && file.is("md"));
        docs.map(|file| file.text.as_str()).collect::<Vec<_>>().join("\n")
    }
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        let lines = if path.ends_with(".rs") { lex(text) } else { Vec::new() };
        Source { path: path.to_string(), text: text.to_string(), lines }
    }

    fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    fn is_shell(&self) -> bool {
        self.path == "Makefile" || self.path.starts_with(".ci/") || self.is("sh")
    }

    /// Tests, benchmarks and examples: the package `tests` is all test.
    fn is_test(&self) -> bool {
        let folders = ["tests/", "/tests/", "/benches/", "/examples/"];
        self.path.starts_with(folders[0])
            || folders[1..].iter().any(|part| self.path.contains(part))
    }

    /// Lines outside test modules, with their numbers.
    fn product(&self) -> impl Iterator<Item = (usize, &Line)> {
        let lines = self.lines.iter().enumerate();
        lines.filter(|(_, line)| !line.in_test).map(|(index, line)| (index + 1, line))
    }

    fn breach(&self, line: usize, advice: impl Into<String>) -> Breach {
        Breach { place: format!("{}:{line}", self.path), advice: advice.into() }
    }

    /// Whether a comment on the line, or in the comment or attribute lines right above it, has the mark.
    fn is_marked(&self, number: usize, mark: &str) -> bool {
        let has = |line: &Line| line.comment.contains(mark);
        let above = self.lines[..number - 1].iter().rev();
        let mut above = above.take_while(|line| {
            let code = line.code.trim();
            (code.is_empty() && !line.comment.is_empty()) || code.starts_with("#[")
        });
        has(&self.lines[number - 1]) || above.any(has)
    }

    /// Every path that the product code names below a crate or module, use trees written out.
    fn paths_below(&self, root: &str) -> Vec<(usize, String)> {
        let mut code = String::new();
        let mut numbers = Vec::new();
        for (number, line) in self.product() {
            code.push_str(&line.code);
            code.push('\n');
            numbers.resize(code.len(), number);
        }
        let mut found = Vec::new();
        for (at, _) in code.match_indices(root) {
            if is_word(&code, at, root.len()) {
                let rest = code[at + root.len()..].trim_start();
                let tree = rest.strip_prefix("::").unwrap_or_default();
                let mut names = Vec::new();
                write_out(&mut tree.trim_start().chars().peekable(), String::new(), &mut names);
                found.extend(names.into_iter().map(|name| (numbers[at], name)));
            }
        }
        found
    }
}

/// `{a, b::{c, d}}` as `a`, `b::c`, `b::d`. Ends where the path or tree ends.
fn write_out(
    input: &mut std::iter::Peekable<std::str::Chars<'_>>,
    before: String,
    out: &mut Vec<String>,
) {
    let mut name = before.clone();
    while let Some(&next) = input.peek() {
        match next {
            '{' => {
                input.next();
                loop {
                    while input.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
                    match input.peek() {
                        Some('}') | None => break,
                        _ => write_out(input, name.clone(), out),
                    }
                    // ` as other`, and whatever else no path has
                    while input.next_if(|c| !matches!(c, ',' | '}' | ';')).is_some() {}
                    if input.peek() == Some(&';') {
                        break;
                    }
                }
                input.next();
                return;
            }
            c if c.is_alphanumeric() || matches!(c, '_' | ':' | '*') => name.push(c),
            _ => break,
        }
        input.next();
    }
    out.push(name);
}

fn is_word(text: &str, at: usize, length: usize) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    !text[..at].ends_with(part_of_word) && !text[at + length..].starts_with(part_of_word)
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| is_word(text, at, word.len()))
}

/// Splits Rust into code and comments, line by line, and finds the `#[cfg(test)]` modules.
fn lex(text: &str) -> Vec<Line> {
    enum In {
        Code,
        LineComment,
        BlockComment(usize),
        Text { hashes: Option<usize> },
    }
    let mut lines = vec![Line::default()];
    let mut state = In::Code;
    let bytes: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let starts = |word: &str| word.chars().eq(rest.iter().copied().take(word.len()));
        let line = lines.last_mut().expect("one line at least");
        if rest[0] == '\n' {
            if matches!(state, In::LineComment) {
                state = In::Code;
            }
            lines.push(Line::default());
            at += 1;
            continue;
        }
        match &mut state {
            In::Code if starts("//") => {
                state = In::LineComment;
                at += 2;
            }
            In::Code if starts("/*") => {
                state = In::BlockComment(1);
                at += 2;
            }
            In::Code if rest[0] == '"' => {
                let opening = line.code.trim_end_matches('#');
                let raw = opening.ends_with('r') && {
                    let word: Vec<char> = opening.chars().rev().skip(1).take(2).collect();
                    !word.first().is_some_and(|c| c.is_alphanumeric() || *c == '_')
                        || (matches!(word.first(), Some('b' | 'c'))
                            && !word.get(1).is_some_and(|c| c.is_alphanumeric() || *c == '_'))
                };
                let hashes = line.code.len() - opening.len();
                state = In::Text { hashes: raw.then_some(hashes) };
                line.code.push('"');
                at += 1;
            }
            In::Code if rest[0] == '\'' => {
                // a character, or the start of a lifetime
                let end = match rest.get(1) {
                    Some('\\') => rest.iter().skip(3).position(|c| *c == '\'').map(|n| n + 4),
                    Some(_) if rest.get(2) == Some(&'\'') => Some(3),
                    _ => None,
                };
                line.code.push_str(if end.is_some() { "' '" } else { "'" });
                at += end.unwrap_or(1);
            }
            In::Code => {
                line.code.push(rest[0]);
                at += 1;
            }
            In::LineComment => {
                line.comment.push(rest[0]);
                at += 1;
            }
            In::BlockComment(depth) => {
                if starts("/*") || starts("*/") {
                    *depth = if starts("/*") { *depth + 1 } else { *depth - 1 };
                    if *depth == 0 {
                        state = In::Code;
                    }
                    at += 2;
                } else {
                    line.comment.push(rest[0]);
                    at += 1;
                }
            }
            In::Text { hashes: None } if rest[0] == '\\' => {
                // what a backslash protects; an end of line is still counted as one
                at += if rest.get(1) == Some(&'\n') { 1 } else { 2 };
            }
            In::Text { hashes } => {
                let count = hashes.unwrap_or(0);
                let closed = rest[0] == '"'
                    && rest.len() > count
                    && rest[1..=count].iter().all(|c| *c == '#');
                if closed {
                    line.code.push('"');
                    state = In::Code;
                    at += 1 + count;
                } else {
                    at += 1;
                }
            }
        }
    }
    mark_tests(&mut lines);
    lines
}

fn mark_tests(lines: &mut [Line]) {
    let mut depth = 0i64;
    let mut announced = false;
    let mut until: Option<i64> = None;
    for line in lines {
        announced |= line.code.contains("#[cfg(test)]");
        line.in_test = announced || until.is_some();
        for c in line.code.chars() {
            match c {
                '{' => {
                    if announced && until.is_none() {
                        (until, announced) = (Some(depth), false);
                    }
                    depth += 1;
                }
                '}' => {
                    depth -= 1;
                    if until == Some(depth) {
                        until = None;
                    }
                }
                ';' if announced && until.is_none() => announced = false,
                _ => {}
            }
        }
    }
}

// ---- rules about code ------------------------------------------------------------------------------

/// engine <- replication <- server <- tests, in code and in manifests.
fn crates_point_one_way(tree: &Tree) -> Vec<Breach> {
    let order = ["engine", "replication", "server", "tests"];
    let mut found = Vec::new();
    for (place, krate) in order.iter().enumerate() {
        for later in &order[place + 1..] {
            let advice = format!("{krate} knows nothing of {later}: pass in what it needs");
            for file in tree.under(&[&format!("{krate}/")]) {
                for (index, line) in file.lines.iter().enumerate() {
                    if has_word(&line.code, &format!("lattis_{later}")) {
                        found.push(file.breach(index + 1, &advice));
                    }
                }
            }
            let manifest = format!("{krate}/Cargo.toml");
            if tree.text(&manifest).is_some_and(|text| text.contains(&format!("lattis-{later}"))) {
                found.push(Breach { place: manifest, advice });
            }
        }
    }
    found
}

/// Replication carries commits without looking into them.
fn replication_knows_the_vocabulary_only(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for file in tree.under(&["replication/src/"]) {
        for (line, name) in file.paths_below("lattis_engine") {
            let allowed = ENGINE_FOR_REPLICATION
                .iter()
                .any(|prefix| name == *prefix || name.starts_with(&format!("{prefix}::")));
            if !allowed {
                let list = ENGINE_FOR_REPLICATION.join(", ");
                let advice = format!("lattis_engine::{name}: replication uses {list} only");
                found.push(file.breach(line, advice));
            }
        }
    }
    found
}

/// tokio and mio belong to the server.
fn only_the_server_has_an_event_loop(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for word in ["tokio", "mio"] {
        let advice = format!("{word} is the server's: take inputs and return outputs as values");
        for file in tree.under(&["engine/", "replication/", "tests/"]) {
            for (index, line) in file.lines.iter().enumerate() {
                if has_word(&line.code, word) {
                    found.push(file.breach(index + 1, &advice));
                }
            }
        }
        for krate in ["engine", "replication", "tests"] {
            let manifest = format!("{krate}/Cargo.toml");
            if tree.text(&manifest).is_some_and(|text| has_word(text, word)) {
                found.push(Breach { place: manifest, advice: advice.clone() });
            }
        }
    }
    found
}

/// No clock, randomness, I/O or threads: time and random numbers are arguments.
fn engine_and_replication_are_pure(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for file in tree.under(&["engine/src/", "replication/src/"]) {
        if file.path == IO_FILE {
            continue;
        }
        let advice = |what: &str| {
            format!(
                "{what}: time and randomness are arguments, I/O belongs to {IO_FILE} or server/"
            )
        };
        for (line, name) in file.paths_below("std") {
            if OUTSIDE.contains(&name.split("::").next().unwrap_or_default()) {
                found.push(file.breach(line, advice(&format!("std::{name}"))));
            }
        }
        for (number, line) in file.product() {
            for word in ["Instant", "SystemTime", "rand", "getrandom", "OsRng"] {
                if has_word(&line.code, word) {
                    found.push(file.breach(number, advice(word)));
                }
            }
            for word in ["println", "eprintln", "print", "eprint", "dbg"] {
                if has_word(&line.code, word) && line.code.contains(&format!("{word}!")) {
                    let what = format!("{word}!");
                    found.push(file.breach(number, format!("{what}: return what is to be said")));
                }
            }
        }
    }
    found
}

/// Hash-ordered collections: none in replication; in the engine only with `// order-free: why`.
fn no_hash_order(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for file in tree.under(&["engine/src/", "replication/src/"]) {
        let engine = file.path.starts_with("engine/");
        for (number, line) in file.product() {
            let code = line.code.trim_start();
            let hashed = ["HashMap", "HashSet", "DashMap"]
                .iter()
                .filter(|word| has_word(code, word))
                .any(|word| {
                    let typed = code.contains(&format!("{word}<"));
                    let bound = code.starts_with("let ") && code.contains(&format!("{word}::"));
                    !engine || typed || bound
                });
            if hashed && !(engine && file.is_marked(number, "order-free:")) {
                let advice = if engine {
                    "hash order differs between runs: take a BTreeMap, or say in `// order-free: ...` \
                     why nothing iterates over it"
                } else {
                    "hash order differs between runs: take a BTreeMap or a sorted vector"
                };
                found.push(file.breach(number, advice));
            }
        }
    }
    found
}

/// `unsafe` only where [`UNSAFE_FILES`] says why.
fn unsafe_is_listed(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for file in tree.rust() {
        if UNSAFE_FILES.iter().any(|(path, _)| *path == file.path) {
            continue;
        }
        for (index, line) in file.lines.iter().enumerate() {
            if has_word(&line.code, "unsafe") {
                let advice = "unsafe: do without, or list the file in UNSAFE_FILES with its reason";
                found.push(file.breach(index + 1, advice));
            }
        }
    }
    found
}

/// `.unwrap()` and `.expect(` in the product stand beside a `reason`, in a comment or an attribute.
fn panics_have_reasons(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for file in tree.rust().filter(|file| !file.is_test()) {
        for (number, line) in file.product() {
            let panics = [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("];
            if !panics.iter().any(|word| line.code.contains(word)) {
                continue;
            }
            let from = number.saturating_sub(6);
            let attribute = file.lines[from..number].iter().any(|line| {
                line.code.contains("reason =") // #[expect(clippy::expect_used, reason = "...")]
            });
            if !attribute && !file.is_marked(number, "reason:") {
                let advice = "return an error, or say in `// reason: ...` why this cannot fail";
                found.push(file.breach(number, advice));
            }
        }
    }
    found
}

// ---- rules about files -----------------------------------------------------------------------------

/// A line that cannot be printed ends nothing: no macro that panics then.
fn the_server_tells_by_its_log(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for file in tree.under(&["engine/", "replication/", "server/"]) {
        if file.is_test() {
            continue;
        }
        for (number, line) in file.product() {
            let prints = |word: &str| {
                line.code.match_indices(word).any(|(at, _)| is_word(&line.code, at, word.len()))
            };
            if PRINTING.iter().any(|word| prints(word)) {
                found.push(file.breach(number, "say it by tracing's macros, or by logging::say"));
            }
        }
    }
    found
}

/// Rust begins with `//!`, a script with a comment and `set -euo pipefail`.
fn files_say_what_they_are_for(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for file in &tree.files {
        if file.is("rs") && !file.text.starts_with("//! ") {
            found.push(file.breach(1, "begin the file with a paragraph of purpose (`//! ...`)"));
        }
        if file.text.starts_with("#!") {
            if !file.text.lines().nth(1).is_some_and(|line| line.starts_with("# ")) {
                found
                    .push(file.breach(2, "begin the script with a paragraph of purpose (`# ...`)"));
            }
            let bash = file.text.lines().next().is_some_and(|line| line.ends_with("bash"));
            if bash && !file.text.contains("\nset -euo pipefail\n") {
                found
                    .push(file.breach(1, "a script stops at its first failure: set -euo pipefail"));
            }
        }
    }
    found
}

fn lines_are_short(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.is("rs") || file.is_shell()) {
        for (index, line) in file.text.lines().enumerate() {
            let length = line.chars().count();
            if length > LINE_LENGTH_MAX {
                let advice = format!("{length} characters: break the line at {LINE_LENGTH_MAX}");
                found.push(file.breach(index + 1, advice));
            }
        }
    }
    found
}

fn files_are_short(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for file in tree.rust() {
        let length = file.text.lines().count();
        if length > FILE_LENGTH_MAX {
            let advice = format!("{length} lines: split the file by what its parts are about");
            found.push(file.breach(FILE_LENGTH_MAX, advice));
        }
    }
    found
}

/// No placeholders, and no test that is not run.
fn nothing_is_left_for_later(tree: &Tree) -> Vec<Breach> {
    let (to_do, fix_me) = (concat!("TO", "DO"), concat!("FIX", "ME"));
    let mut found = Vec::new();
    for file in &tree.files {
        for (index, line) in file.lines.iter().enumerate() {
            for word in ["todo!", "unimplemented!", "#[ignore"] {
                if line.code.contains(word) {
                    let advice = format!("{word}: finish it now, or leave it out");
                    found.push(file.breach(index + 1, advice));
                }
            }
            for word in [to_do, fix_me] {
                if has_word(&line.comment, word) {
                    let advice = format!("{word}: finish it now, or leave it out");
                    found.push(file.breach(index + 1, advice));
                }
            }
        }
        if file.is("md") || file.is("toml") || file.is_shell() {
            for (index, line) in file.text.lines().enumerate() {
                if has_word(line, to_do) || has_word(line, fix_me) {
                    found.push(file.breach(index + 1, "finish it now, or leave it out"));
                }
            }
        }
    }
    found
}

/// What works here has to work elsewhere.
fn no_path_of_one_machine(tree: &Tree) -> Vec<Breach> {
    let homes = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    let more = [concat!("/wo", "rk/"), concat!("/tmp/", "wt-")];
    let mut found = Vec::new();
    for file in &tree.files {
        for (index, line) in file.text.lines().enumerate() {
            for path in homes.iter().chain(&more) {
                let absolute = line.match_indices(path).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~$})/".contains(c))
                });
                if absolute {
                    let advice =
                        format!("{path}: name it from the repository's top or by a variable");
                    found.push(file.breach(index + 1, advice));
                }
            }
        }
    }
    found
}

// ---- rules about documents -------------------------------------------------------------------------

/// The names in `enum Family { ... }`.
fn column_families(tree: &Tree) -> Vec<String> {
    let Some(file) = tree.files.iter().find(|file| file.path == "engine/src/store/mod.rs") else {
        return Vec::new();
    };
    let code: Vec<&str> = file.lines.iter().map(|line| line.code.trim()).collect();
    let body = code.iter().skip_while(|line| !line.contains("enum Family")).skip(1);
    body.take_while(|line| !line.starts_with('}'))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.chars().take_while(|c| c.is_alphanumeric()).collect::<String>())
        .map(|name| name.to_lowercase())
        .collect()
}

/// Whoever adds a column family writes down its keys.
fn column_families_are_documented(tree: &Tree) -> Vec<Breach> {
    let docs = tree.all_docs();
    let missing =
        column_families(tree).into_iter().filter(|name| !docs.contains(&format!("`{name}`")));
    let breach = |name| Breach {
        place: "docs/".to_string(),
        advice: format!(
            "the column family `{name}` is not described: say what its keys and values are"
        ),
    };
    missing.map(breach).collect()
}

/// Comments name rules of docs/model.md as `MODEL` and a letter with a number.
fn rules_that_are_named_are_written(tree: &Tree) -> Vec<Breach> {
    let model = tree.files.iter().find(|file| file.path == "docs/model.md");
    let model = model.map_or("", |file| file.text.as_str());
    let mut found = Vec::new();
    for file in &tree.files {
        for (index, line) in file.text.lines().enumerate() {
            for (at, name) in line.match_indices(concat!("MODEL", " ")) {
                let rule = &line[at + name.len()..];
                let end = rule.find(|it: char| !it.is_ascii_alphanumeric()).unwrap_or(rule.len());
                let rule = &rule[..end];
                if !rule.starts_with(['L', 'M']) || !rule.ends_with(|it: char| it.is_ascii_digit())
                {
                    continue;
                }
                if !["## ", "**"].iter().any(|head| model.contains(&format!("{head}{rule} "))) {
                    found.push(file.breach(index + 1, format!("docs/model.md has no {rule}")));
                }
            }
        }
    }
    found
}

/// The names of the command table: `name: "..."` of the records in server/src/commands/.
pub fn commands_in_table(tree: &Tree) -> Vec<String> {
    let mut names = Vec::new();
    for file in tree.under(&["server/src/commands/"]) {
        let mut in_record = false;
        for (index, line) in file.text.lines().enumerate() {
            if file.lines[index].in_test {
                continue;
            }
            in_record |= file.lines[index].code.contains("Command {");
            let name = line.split("name: \"").nth(1).and_then(|rest| rest.split('"').next());
            if let (true, Some(name)) = (in_record, name) {
                names.extend((!name.is_empty()).then(|| name.to_uppercase()));
                in_record = false;
            }
        }
    }
    names
}

/// The names that docs/commands.md, which is generated from the table, describes: its headings.
/// `CLIENT ID` and `CLIENT|ID` are one.
pub fn documented_commands(tree: &Tree) -> BTreeSet<String> {
    let page = tree.text("docs/commands.md").unwrap_or_default();
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_matches(['#', ' ', '`']).replace(' ', "|").to_uppercase())
        .collect()
}

/// docs/commands.md is as new as the table.
fn commands_are_documented(tree: &Tree) -> Vec<Breach> {
    let documented = documented_commands(tree);
    let missing = commands_in_table(tree).into_iter().filter(|name| !documented.contains(name));
    let breach = |name| Breach {
        place: "docs/commands.md".to_string(),
        advice: format!("{name} is missing: generate the page from the command table again"),
    };
    missing.map(breach).collect()
}

/// Links from one file of the repository to another.
fn links_lead_somewhere(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.is("md")) {
        let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        for (index, line) in file.text.lines().enumerate() {
            for (at, _) in line.match_indices("](") {
                let target = line[at + 2..].split([')', '#', ' ']).next().unwrap_or_default();
                if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let mut path = PathBuf::new();
                for part in folder.join(target).components() {
                    match part {
                        std::path::Component::ParentDir => drop(path.pop()),
                        std::path::Component::CurDir => {}
                        part => path.push(part),
                    }
                }
                let path = path.to_string_lossy().into_owned();
                if !path.is_empty() && !tree.paths.contains(&path) {
                    found.push(file.breach(index + 1, format!("{target} is not there")));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a rule, found by its name, is broken in a repository of one file.
    fn breaches(rule: &str, path: &str, text: &str) -> usize {
        breaches_of(rule, &[(path, text)])
    }

    fn breaches_of(rule: &str, files: &[(&str, &str)]) -> usize {
        let (_, check) = RULES.iter().find(|(name, _)| *name == rule).expect("a rule of that name");
        check(&Tree::of(files)).len()
    }

    #[test]
    fn code_is_told_from_text() {
        let lines = lex(concat!(
            "let a = \"// unsafe\"; // say \"x\"\n",
            "let b = r#\"unsafe \" still\"#; let c = '\"'; let d: &'static str = \"\\\"unsafe\";\n",
            "/* unsafe\n /* nested */ unsafe */ code();\n",
            "let for_r = \"unsafe\n unsafe\";\n",
            "let e = '\\''; let f = b\"\\\\\"; rest();",
        ));
        assert!(lines.iter().all(|line| !line.code.contains("unsafe")), "{lines:?}");
        assert_eq!(lines[0].comment, " say \"x\"");
        assert!(lines[3].code.contains("code();"));
        assert!(lines[6].code.contains("rest();"));
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn test_modules_are_found() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n\
                    #[cfg(test)]\nmod other;\nfn d() {}\n";
        let marks: Vec<bool> = lex(text).iter().map(|line| line.in_test).collect();
        assert_eq!(marks, [false, true, true, true, true, false, true, true, false, false]);
    }

    #[test]
    fn use_trees_are_written_out() {
        let text =
            "use std::{\n  collections::{BTreeMap as M, *},\n  fs,\n};\nfn f() { std::io::x() }";
        let names = Source::new("x.rs", text).paths_below("std");
        let want = [(1, "collections::BTreeMap"), (1, "collections::*"), (1, "fs"), (5, "io::x")];
        assert_eq!(names, want.map(|(line, name)| (line, name.to_string())));
    }

    #[test]
    fn crates_point_one_way_finds() {
        let rule = "crates point one way";
        assert_eq!(breaches(rule, "engine/src/a.rs", "use lattis_replication::Node;"), 1);
        assert_eq!(breaches(rule, "replication/Cargo.toml", "lattis-server.workspace = true"), 1);
        assert_eq!(breaches(rule, "server/src/a.rs", "use lattis_engine::Engine;"), 0);
        assert_eq!(breaches(rule, "engine/src/a.rs", "//! Unlike lattis_server"), 0);
    }

    #[test]
    fn replication_knows_the_vocabulary_only_finds() {
        let rule = "replication knows the engine's vocabulary only";
        let path = "replication/src/a.rs";
        assert_eq!(breaches(rule, path, "use lattis_engine::engine::Engine;"), 1);
        assert_eq!(
            breaches(rule, path, "use lattis_engine::{codec, commit::{Commit, LogEntry}};"),
            1
        );
        assert_eq!(breaches(rule, path, "use lattis_engine::commit;"), 1);
        assert_eq!(breaches(rule, path, "use lattis_engine as engine;"), 1);
        let good =
            "use lattis_engine::{causal::*, codec::Reader, commit::{EncodedCommit, LogEntry}};";
        assert_eq!(breaches(rule, path, good), 0);
    }

    #[test]
    fn only_the_server_has_an_event_loop_finds() {
        let rule = "only the server has an event loop";
        assert_eq!(breaches(rule, "replication/src/a.rs", "use tokio::time;"), 1);
        assert_eq!(breaches(rule, "tests/Cargo.toml", "mio = \"1\""), 1);
        assert_eq!(breaches(rule, "server/src/a.rs", "use tokio::time;"), 0);
    }

    #[test]
    fn engine_and_replication_are_pure_finds() {
        let rule = "engine and replication are pure";
        let path = "engine/src/a.rs";
        for text in [
            "use std::{collections::BTreeMap, time::Duration};",
            "let now = Instant::now();",
            "let x = rand::random();",
            "std::thread::spawn(f);",
            "println!(\"x\");",
            "use std::fs;",
            "use std::net::TcpStream;",
        ] {
            assert_eq!(breaches(rule, path, text), 1, "{text}");
        }
        assert_eq!(breaches(rule, path, "use rand_core::RngCore; use std::mem;"), 0);
        assert_eq!(breaches(rule, IO_FILE, "use std::fs;"), 0);
        assert_eq!(breaches(rule, "server/src/a.rs", "use std::fs;"), 0);
        assert_eq!(breaches(rule, path, "#[cfg(test)]\nmod tests { use std::fs; }"), 0);
    }

    #[test]
    fn no_hash_order_finds() {
        let rule = "no hash order in deterministic code";
        let (engine, replication) = ("engine/src/a.rs", "replication/src/a.rs");
        assert_eq!(breaches(rule, engine, "cache: HashMap<K, V>,"), 1);
        assert_eq!(breaches(rule, engine, "let a = HashSet::new();"), 1);
        assert_eq!(
            breaches(rule, engine, "// order-free: looked up only\ncache: HashMap<K, V>,"),
            0
        );
        assert_eq!(breaches(rule, engine, "use foldhash::HashMap;"), 0);
        assert_eq!(breaches(rule, replication, "use foldhash::HashMap;"), 1);
        assert_eq!(breaches(rule, replication, "a: HashMap<K, V>, // order-free: x"), 1);
    }

    #[test]
    fn unsafe_is_listed_finds() {
        let rule = "unsafe is listed";
        assert_eq!(breaches(rule, "server/src/a.rs", "unsafe { f() }"), 1);
        assert_eq!(breaches(rule, "server/src/a.rs", "#![forbid(unsafe_code)] // unsafe"), 0);
    }

    #[test]
    fn panics_have_reasons_finds() {
        let rule = "panics have reasons";
        let path = "server/src/a.rs";
        assert_eq!(breaches(rule, path, "a.unwrap();"), 1);
        assert_eq!(breaches(rule, path, "a.expect(\"b\");"), 1);
        assert_eq!(breaches(rule, path, "a.unwrap(); // reason: just pushed"), 0);
        assert_eq!(breaches(rule, path, "// reason: just\n// pushed\na.unwrap();"), 0);
        assert_eq!(
            breaches(rule, path, "#[expect(clippy::x, reason = \"b\")]\nfn f() {\na.unwrap()"),
            0
        );
        assert_eq!(breaches(rule, path, "#[cfg(test)]\nmod tests {\na.unwrap();\n}"), 0);
        assert_eq!(breaches(rule, "tests/src/a.rs", "a.unwrap();"), 0);
    }

    #[test]
    fn the_server_tells_by_its_log_finds() {
        let rule = "the server tells by its log";
        for text in ["println!(\"x\");", "eprint!(\"x\");", "f(|| std::eprintln!());"] {
            assert_eq!(breaches(rule, "server/src/a.rs", text), 1, "{text}");
        }
        assert_eq!(breaches(rule, "engine/src/a.rs", "dbg!(x)"), 1);
        let good = "tracing::info!(\"println!\"); // print! is not used";
        assert_eq!(breaches(rule, "server/src/a.rs", good), 0);
        let test = "#[cfg(test)]\nmod tests { fn f() { println!(); } }";
        assert_eq!(breaches(rule, "server/src/a.rs", test), 0);
        assert_eq!(breaches(rule, "tests/src/a.rs", "println!();"), 0);
    }

    #[test]
    fn files_say_what_they_are_for_finds() {
        let rule = "files say what they are for";
        assert_eq!(breaches(rule, "server/src/a.rs", "use x;"), 1);
        assert_eq!(breaches(rule, ".ci/a", "#!/usr/bin/env bash\necho\n"), 2);
        assert_eq!(breaches(rule, ".ci/a", "#!/usr/bin/env bash\n# What.\nset -euo pipefail\n"), 0);
    }

    #[test]
    fn lengths_are_bounded() {
        let long = "x".repeat(LINE_LENGTH_MAX + 1);
        assert_eq!(breaches("lines are short", "server/src/a.rs", &long), 1);
        assert_eq!(breaches("lines are short", "server/src/a.rs", &long[1..]), 0);
        assert_eq!(breaches("lines are short", "Makefile", &long), 1);
        let lines = "x\n".repeat(FILE_LENGTH_MAX + 1);
        assert_eq!(breaches("files are short", "server/src/a.rs", &lines), 1);
        assert_eq!(breaches("files are short", "server/src/a.rs", &lines[2..]), 0);
    }

    #[test]
    fn nothing_is_left_for_later_finds() {
        let rule = "nothing is left for later";
        let comment = format!("// {}: later", concat!("TO", "DO"));
        for text in ["todo!()", "unimplemented!()", "#[ignore]\nfn f() {}", &comment] {
            assert_eq!(breaches(rule, "server/src/a.rs", text), 1, "{text}");
        }
        assert_eq!(breaches(rule, "docs/a.md", concat!("FIX", "ME")), 1);
        assert_eq!(breaches(rule, "server/src/a.rs", "let todo = 1;"), 0);
    }

    #[test]
    fn no_path_of_one_machine_finds() {
        let rule = "no path of one machine";
        assert_eq!(breaches(rule, "docs/a.md", concat!("see /ro", "ot/x")), 1);
        assert_eq!(breaches(rule, "a.toml", concat!("dir = \"/ho", "me/me/x\"")), 1);
        assert_eq!(breaches(rule, "docs/a.md", "see ~/.cache, docs/work/x"), 0);
    }

    #[test]
    fn documents_are_checked_against_the_code() {
        let rule = "column families are documented";
        let store = "pub enum Family {\n    /// Rows.\n    Data,\n    Log = 2,\n}\n";
        let store = ("engine/src/store/mod.rs", store);
        assert_eq!(breaches_of(rule, &[store, ("docs/storage.md", "`data` holds rows")]), 1);
        assert_eq!(breaches_of(rule, &[store, ("docs/storage.md", "`data`, `log`")]), 0);
        let rule = "commands are documented";
        let table = "pub const T: &[Command] = &[Command {\n name: \"get\", arity: 2 }];";
        let table = ("server/src/commands/string.rs", table);
        assert_eq!(breaches_of(rule, &[table]), 1);
        assert_eq!(breaches_of(rule, &[table, ("docs/commands.md", "### `GET`\n")]), 0);
        let sub = ("server/src/commands/b.rs", "&[Command {\n name: \"client|id\", arity: 2 }]");
        assert_eq!(breaches_of(rule, &[sub, ("docs/commands.md", "## CLIENT ID\n")]), 0);
    }

    #[test]
    fn links_lead_somewhere_finds() {
        let rule = "links lead somewhere";
        assert_eq!(breaches(rule, "docs/a.md", "see [b](b.md)"), 1);
        assert_eq!(breaches(rule, "docs/a.md", "see [a](a.md#x), [x](#x), [y](https://y/z)"), 0);
        assert_eq!(breaches(rule, "docs/a.md", "see [a](../docs/a.md)"), 0);
    }

    #[test]
    fn rules_that_are_named_are_written_finds() {
        let rule = "rules that are named are written";
        let code = concat!("// (MODEL", " M3), (MODEL", " L1), (MODEL", " M30)");
        let model = ("docs/model.md", "- **L1 A law.**\n## M3 A rule\n");
        assert_eq!(breaches_of(rule, &[("engine/src/a.rs", code), model]), 1);
        assert_eq!(breaches_of(rule, &[("engine/src/a.rs", code)]), 3);
    }

    /// Every rule of the table has a test above that names it.
    #[test]
    fn every_rule_is_shown_to_fail() {
        let tests =
            include_str!("tidy.rs").split("\n#[cfg(test)]\nmod tests {\n").nth(1).expect("tests");
        for (name, _) in RULES {
            assert!(
                tests.contains(&format!("\"{name}\"")),
                "no test shows that \"{name}\" can fail"
            );
        }
    }
}
