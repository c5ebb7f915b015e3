//! The suite's names of its cases.

use std::fmt::{self, Display};
use std::num::ParseIntError;
use std::str::FromStr;

/// A case, such as 12.3.11. Cases are in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case(Vec<u32>);

impl Case {
    /// Whether `pattern` names the case: `12` all that begin with 12, `12.*.4` the fourth of each group below it.
    pub(crate) fn matches(&self, pattern: &str) -> bool {
        let parts = pattern.split('.').map(Some).chain(std::iter::repeat(None));
        self.0.iter().zip(parts).all(|(number, part)| match part {
            None | Some("*") => true,
            Some(part) => part.parse() == Ok(*number),
        })
    }

    pub(crate) fn matches_any(&self, patterns: &[&str]) -> bool {
        patterns.iter().any(|pattern| self.matches(pattern))
    }

    /// The group that the suite's reports put it in: its first number.
    pub(crate) fn group(&self) -> u32 {
        self.0[0]
    }
}

impl FromStr for Case {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.split('.').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        formatter.write_str(&numbers.join("."))
    }
}
