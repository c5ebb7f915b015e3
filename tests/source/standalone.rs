//! `websocket-standalone`: what its manual page and its `--help` say agrees with the options that it takes.

use super::root;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

type Options = BTreeSet<String>;

fn text(name: &str) -> String {
    fs::read_to_string(root().join("apache-conf").join(name)).expect("a text")
}

/// The long and the short options in a text.
fn options(text: &str) -> Options {
    let words = text.split(|c: char| !c.is_ascii_alphabetic() && c != '-');
    let is_option = |word: &&str| match word.strip_prefix("--") {
        Some(long) => long.starts_with(|c: char| c.is_ascii_alphabetic()),
        None => word.len() == 2 && word.starts_with('-') && *word != "--",
    };
    words.filter(is_option).map(str::to_owned).collect()
}

/// What stands in a text between two marks.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let text = text.split_once(from).expect("the first mark").1;
    text.split_once(to).expect("the second mark").0
}

/// What the command's own parser takes.
fn taken() -> Options {
    let script = text("standalone");
    let mut taken = options(between(&script, "# The long name of a short option.", "\n}"));
    let long = options(between(&script, "\n    case $option in\n", "there is no option"));
    taken.extend(long.into_iter().filter(|option| option.starts_with("--")));
    assert!(taken.len() > 30, "{taken:?}");
    taken
}

/// The manual page without its markup.
fn manual() -> String {
    let page = text("websocket-standalone.1").replace("\\-", "-").replace("\\fI", " ").replace("\\fP", " ");
    page.replace(['"', ','], " ")
}

#[test]
fn the_manual_page_has_all_options() {
    let page = manual();
    let sections = between(&page, "\n.SH OPTIONS\n", "\n.SH EXIT STATUS\n");
    // What heads a paragraph.
    let headings = sections.split("\n.TP\n").skip(1).filter_map(|paragraph| paragraph.lines().next());
    assert_eq!(headings.map(options).fold(Options::new(), |all, some| &all | &some), taken());
    // Nor does the rest name others.
    assert_eq!(&options(&page) - &taken(), Options::new());
}

#[test]
fn help_has_all_options_and_fits_a_screen() {
    let output = |option: &str| {
        let output = Command::new(root().join("apache-conf/standalone")).arg(option).output().expect("the command");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).expect("a text")
    };
    let help = output("-h");
    assert_eq!(output("--help"), help);
    let named = options(&help);
    // They do nothing.
    let passed_over = ["-V", "-P", "--validation-host", "--validation-port"].map(str::to_owned);
    assert_eq!(named, &taken() - &Options::from(passed_over));
    assert!(help.lines().count() <= 24 && help.lines().all(|line| line.chars().count() <= 80), "{help}");
}

#[test]
fn groff_finds_nothing_wrong_with_the_manual_page() {
    let page = root().join("apache-conf/websocket-standalone.1");
    let output = Command::new("groff").args(["-ww", "-z", "-man", "-K", "utf8"]).arg(page).output();
    let output = output.expect("groff: install groff-base");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
