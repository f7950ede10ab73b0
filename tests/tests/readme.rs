//! The tour in README.md is what the demo runs.

use lattis_tests::process::repository;

#[path = "../src/bin/demo.rs"]
#[allow(dead_code, reason = "only its table is looked at here")]
mod demo;

/// A digest, of which the table knows only where it stands, as the table writes it.
fn without_digest(line: &str) -> String {
    let word = line.trim_matches('"');
    let is_digest = word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { "\"DIGEST\"".to_string() } else { line.to_string() }
}

#[test]
fn the_tour_is_what_the_demo_runs() {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("README.md");
    let lines: Vec<String> = readme.lines().map(without_digest).collect();
    let tour = demo::session();
    let start = lines.iter().position(|line| *line == tour[0]).expect("the tour in README.md");
    for (at, want) in tour.iter().enumerate() {
        let got = lines.get(start + at).map_or("", |line| line);
        assert_eq!(got, want, "line {} of README.md; `make demo` prints the tour", start + at + 1);
    }
}
