//! docs/commands.md is what the command table makes of it today.

use lattis_tests::process::repository;
use lattis_tests::tidy::{Tree, commands_in_table};

#[path = "../src/bin/commands.rs"]
mod generator;

#[test]
fn the_page_of_commands_is_as_new_as_the_table() {
    let page = generator::page(repository());
    let kept = std::fs::read_to_string(repository().join("docs/commands.md")).unwrap_or_default();
    let differs = page.lines().zip(kept.lines()).position(|(new, old)| new != old);
    assert!(page == kept, "docs/commands.md is stale from line {differs:?} on: run `make docs`");
}

/// Every record of the table is found, with all that the page shows of it.
#[test]
fn every_command_is_on_the_page() {
    let page = generator::page(repository());
    let table = commands_in_table(&Tree::read(repository()).expect("the repository"));
    assert_eq!(generator::headings(&page), table.len());
    for name in table {
        let heading = format!("## {}", name.replace('|', " "));
        assert!(page.lines().any(|line| line == heading), "{heading}");
    }
    for empty in ["\n\n.\n", "```\n\n```", "complexity: \n", "example: ``", "group: \n"] {
        assert!(!page.contains(empty), "something is missing before {empty:?}");
    }
}
