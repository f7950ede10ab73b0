//! The rules of the house, over every file of the repository.

use lattis_tests::process::repository;
use lattis_tests::tidy::{RULES, Tree};

#[test]
fn the_house_is_tidy() {
    let tree = Tree::read(repository()).expect("the repository");
    let mut report = String::new();
    for (name, rule) in RULES {
        for breach in rule(&tree) {
            report.push_str(&format!("{name}: {}: {}\n", breach.place, breach.advice));
        }
    }
    assert!(report.is_empty(), "\n{report}");
}
