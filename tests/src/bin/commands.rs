//! Writes docs/commands.md from the command table (`make docs`).
//!
//! The records are read as text from `server/src/commands/`, so that this program needs no server to be
//! built. `tests/tests/commands.rs` fails when the page is older than the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Groups in the order of the page: the word in a record, and what people call it.
const GROUPS: [(&str, &str); 10] = [
    ("String", "Strings and numbers"),
    ("Set", "Sets"),
    ("Hash", "Hashes"),
    ("Generic", "Keys of any type"),
    ("Transactions", "Transactions"),
    ("Crdt", "CRDTs"),
    ("Dataflow", "Bindings"),
    ("Peers", "Peers"),
    ("Connection", "Connection"),
    ("Server", "Server"),
];

/// The version that a record without `since` means: `Command::BASE`.
const OURS: &str = "0.1.0";

const INTRODUCTION: &str = "# Commands

This page is generated from the command table (`make docs`). Commands that Redis has mean here what they
mean there, on one node; what concurrent ones mean together says [semantics.md](semantics.md). `since`
names the version of Redis that had the command first, or that of Lattis.

";

/// One command as its record has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Record {
    name: String,
    syntax: String,
    flags: Vec<String>,
    group: String,
    summary: String,
    since: String,
    complexity: String,
    example: String,
}

impl Record {
    fn heading(&self) -> String {
        self.name.replace('|', " ").to_uppercase()
    }

    /// The command with its arguments. Groups have names there, which only programs need.
    fn usage(&self) -> String {
        let bare = |word: &str| match word.strip_suffix(':') {
            Some(label) => word.find(['[', '<']).map(|_| {
                label.chars().filter(|sign| ['[', '<'].contains(sign)).collect::<String>()
            }),
            None => Some(format!("{word} ")),
        };
        let words = self.syntax.split_whitespace().filter_map(bare);
        format!("{} {}", self.heading(), words.collect::<String>()).trim().to_string()
    }
}

/// The first text in quotes, its lines joined.
fn quoted(text: &str) -> Option<String> {
    let lines = text.split('"').nth(1)?.lines();
    Some(lines.map(|line| line.trim_start().trim_end_matches('\\')).collect())
}

/// Names of flags, those that stand for several taken apart.
fn flags(value: &str, constants: &BTreeMap<&str, &str>) -> Vec<String> {
    let mut found = Vec::new();
    for word in value.split('|').map(str::trim) {
        let flag = word.strip_prefix("flag::").unwrap_or(word);
        match constants.get(flag) {
            Some(several) => found.extend(flags(several, constants)),
            None => found.push(flag.to_lowercase()),
        }
    }
    // Bits that only the server itself looks at.
    found.retain(|flag| !["tracked", "unqueued", "sealed"].contains(&flag.as_str()));
    found
}

/// The constants of a file that stand for several flags.
fn constants(source: &str) -> BTreeMap<&str, &str> {
    let mut constants = BTreeMap::new();
    for part in source.split("const ").skip(1) {
        let Some((name, value)) = part.split_once(": u32 =") else { continue };
        let value = value.split(';').next().unwrap_or_default();
        let several = value.contains(" | ") && !value.contains("acl::");
        if several && !name.contains(char::is_whitespace) {
            constants.insert(name, value);
        }
    }
    constants
}

/// The records at the end of one file. `shared`: constants of the other files.
fn records(source: &str, shared: &BTreeMap<&str, &str>) -> Vec<Record> {
    let Some((code, table)) = source.split_once("const COMMANDS: &[Command] = &[") else {
        return Vec::new();
    };
    let mut constants = constants(code);
    constants.extend(shared);
    let mut found = Vec::new();
    for text in table.split("Command {").skip(1) {
        // A container's own fields stand before its subcommands.
        let field = |name: &str| {
            let begins = |line: &str| line.trim_start().starts_with(&format!("{name}:"));
            let mut lines = text.split_inclusive('\n').scan(0, |at, line| {
                let start = *at;
                *at += line.len();
                Some((start, line))
            });
            let (start, _) = lines.find(|(_, line)| begins(line))?;
            let value = text[start..].split_once(':')?.1;
            Some(value.split_once(",\n").map_or(value, |(value, _)| value).trim())
        };
        let string = |name| field(name).and_then(quoted).unwrap_or_default();
        let since = string("since");
        found.push(Record {
            name: string("name"),
            syntax: string("syntax"),
            flags: field("flags").map(|text| flags(text, &constants)).unwrap_or_default(),
            group: field("group").unwrap_or_default().replace("Group::", ""),
            summary: string("summary"),
            since: if since.is_empty() { OURS.to_string() } else { since },
            complexity: string("complexity"),
            example: string("example"),
        });
    }
    found
}

/// The page for the table of the repository at `top`.
pub fn page(top: &Path) -> String {
    let folder = top.join("server/src/commands");
    let mut files: Vec<_> =
        fs::read_dir(&folder).expect("the commands").flatten().map(|entry| entry.path()).collect();
    files.sort();
    let texts = files.iter().map(|file| fs::read_to_string(file).expect("a file of commands"));
    let flags = fs::read_to_string(folder.join("mod.rs")).expect("the flags");
    let shared = constants(&flags);
    let all: Vec<Record> = texts.flat_map(|text| records(&text, &shared)).collect();
    let of = |group: &str| all.iter().filter(|record| record.group == group).collect::<Vec<_>>();
    let mut page = INTRODUCTION.to_string();
    page.push_str("| group | commands |\n| --- | --- |\n");
    for (group, title) in GROUPS {
        let links: Vec<String> = of(group)
            .iter()
            .filter(|record| !record.name.contains('|'))
            .map(|record| {
                let anchor = record.name.replace('.', "");
                format!("[{}](#{anchor})", record.heading())
            })
            .collect();
        let _ = writeln!(page, "| {title} | {} |", links.join(", "));
    }
    for record in GROUPS.iter().flat_map(|(group, _)| of(group)) {
        let full_stop = if record.summary.ends_with('.') { "" } else { "." };
        let flags = record.flags.join(", ");
        let by = if record.since == OURS { "Lattis" } else { "Redis" };
        let title = GROUPS.iter().find(|(group, _)| *group == record.group);
        let _ = write!(
            page,
            "\n## {}\n\n{}{full_stop}\n\n```\n{}\n```\n\n\
             - example: `{}`\n- complexity: {}\n- flags: {}\n- group: {}\n- since: {by} {}\n",
            record.heading(),
            record.summary,
            record.usage(),
            record.example,
            record.complexity,
            if flags.is_empty() { "none" } else { &flags },
            title.map_or("", |(_, title)| title).to_lowercase(),
            record.since,
        );
    }
    page
}

/// How many records the page was made of.
#[allow(dead_code, reason = "for tests/tests/commands.rs, which includes this file")]
pub fn headings(page: &str) -> usize {
    page.lines().filter(|line| line.starts_with("## ")).count()
}

#[allow(dead_code, reason = "tests/tests/commands.rs includes this file")]
fn main() {
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let page = page(top);
    fs::write(top.join("docs/commands.md"), &page).expect("docs/commands.md");
    println!("docs/commands.md: {} commands", headings(&page));
}
