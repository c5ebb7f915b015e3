//! The expected outcomes: a line a case, with what the suite says of its messages and of its closing handshake.

use crate::case::Case;
use crate::suite::{Outcome, Outcomes};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/expected.tsv");

/// What an outcome may be, whatever the table says. The suite calls informational what the RFC leaves to the server.
const GOOD: [&str; 2] = ["OK", "INFORMATIONAL"];

/// The expected behavior of each case, and its closing.
pub(crate) struct Table(BTreeMap<Case, (String, String)>);

impl Table {
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(FILE).expect("the table of expected outcomes");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let entries = lines.map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [case, behavior, close] = fields[..] else { panic!("{FILE}: {line:?} has not three fields") };
            (case.parse().expect("a case"), (behavior.to_owned(), close.to_owned()))
        });
        Self(entries.collect())
    }

    pub(crate) fn cases(&self) -> Vec<&Case> {
        self.0.keys().collect()
    }

    /// Takes in what may be expected from now on.
    pub(crate) fn update(&mut self, outcomes: &Outcomes) {
        for (case, outcome) in outcomes.iter().filter(|(_, outcome)| is_good(outcome)) {
            self.0.insert(case.clone(), (outcome.behavior.clone(), outcome.close.clone()));
        }
    }

    pub(crate) fn write(&self) {
        let mut text = "# The suite's cases: what it says of the messages, and of the closing handshake.\n".to_owned();
        text += "# Written by tests/conformance/run --write.\n";
        for (case, (behavior, close)) in &self.0 {
            writeln!(text, "{case}\t{behavior}\t{close}").expect("a String");
        }
        fs::write(FILE, text).expect("the table of expected outcomes");
    }

    /// What is not as expected, of the cases that `patterns` name.
    pub(crate) fn deviations(&self, outcomes: &Outcomes, patterns: &[&str]) -> Vec<String> {
        let missing = self.0.keys().filter(|case| case.matches_any(patterns) && !outcomes.contains_key(case));
        let mut deviations: Vec<String> = missing.map(|case| format!("{case}: no outcome")).collect();
        for (case, outcome) in outcomes {
            let Outcome { behavior, close, reason } = outcome;
            let expected = match self.0.get(case) {
                None => "it is not in the table".to_owned(),
                Some(expected) if (&expected.0, &expected.1) != (behavior, close) => {
                    format!("expected was {}, close {}", expected.0, expected.1)
                }
                Some(_) if is_good(outcome) => continue,
                Some(_) => "which the table may not say".to_owned(),
            };
            deviations.push(format!("{case}: {behavior}, close {close}; {expected}. {reason}"));
        }
        deviations
    }
}

fn is_good(outcome: &Outcome) -> bool {
    GOOD.contains(&outcome.behavior.as_str()) && GOOD.contains(&outcome.close.as_str())
}

/// How often each outcome was seen: a line for each group, and one for all closing handshakes.
pub(crate) fn counts(outcomes: &Outcomes) -> String {
    let mut groups: BTreeMap<u32, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut closes: BTreeMap<&str, usize> = BTreeMap::new();
    for (case, outcome) in outcomes {
        *groups.entry(case.group()).or_default().entry(&outcome.behavior).or_default() += 1;
        *closes.entry(&outcome.close).or_default() += 1;
    }
    let list = |counts: BTreeMap<&str, usize>| {
        let counts: Vec<String> = counts.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        counts.join(", ")
    };
    let mut text = String::new();
    for (group, counts) in groups {
        writeln!(text, "  {:<6} {}", format!("{group}.*"), list(counts)).expect("a String");
    }
    writeln!(text, "  close  {}", list(closes)).expect("a String");
    text
}
