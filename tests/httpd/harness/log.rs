//! httpd's error log: which of its lines a test has to answer for.

/// A line at one of these levels, or one without any level, needs to be announced.
const SERIOUS: [&str; 5] = ["emerg", "alert", "crit", "error", "warn"];

/// What httpd says when one of its processes died of a signal; the level is only notice.
const CRASHES: [&str; 3] = ["exit signal", "AH00051", "AH00052"];

/// A line a test knows about.
#[derive(Clone, Debug)]
pub(crate) struct Announced {
    /// What the line contains.
    pub(crate) text: String,
    /// Whether its absence is a failure, too.
    pub(crate) required: bool,
}

/// The level of a line of the error log: "error" in `[time] [module:error] [pid 1:tid 2] …`.
pub(crate) fn level(line: &str) -> Option<&str> {
    let mut groups = line.strip_prefix('[')?.split("] [").skip(1);
    let (module, level) = groups.next()?.split(']').next()?.split_once(':')?;
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    (is_name(module) && is_name(level)).then_some(level)
}

/// The process that wrote a line: 1 in `[time] [module:error] [pid 1:tid 2] …`.
pub(crate) fn pid(line: &str) -> Option<i32> {
    let digits = line.split("[pid ").nth(1)?;
    digits.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// What is wrong with a log, given what the test announced; empty when nothing is.
pub(crate) fn complaints(log: &str, announced: &[Announced]) -> Vec<String> {
    let mut complaints = Vec::new();
    for line in log.lines().filter(|line| !line.trim().is_empty()) {
        if announced.iter().any(|expected| line.contains(&expected.text)) {
            continue;
        }
        if CRASHES.iter().any(|crash| line.contains(crash)) {
            complaints.push(format!("a process of httpd crashed: {line}"));
        } else if level(line).is_none_or(|level| SERIOUS.contains(&level)) {
            complaints.push(format!("unexpected in the error log: {line}"));
        }
    }
    for expected in announced.iter().filter(|expected| expected.required && !log.contains(&expected.text)) {
        complaints.push(format!("missing in the error log: a line with {:?}", expected.text));
    }
    complaints
}

#[test]
fn a_line_has_a_level_and_a_pid() {
    let line = "[Mon Nov 23 04:07:54.167325 2026] [mpm_event:notice] [pid 14607:tid 9] AH00489: [a:b] configured";
    assert_eq!(level(line), Some("notice"));
    assert_eq!(pid(line), Some(14607));
    assert_eq!(level("[Mon Nov 23 04:07:54 2026] [error] [pid 1:tid 2] text"), None);
    assert_eq!(level("thread 'main' panicked at [src/lib.rs:1] [core:info]"), None);
    assert_eq!(level("sh: 1: no such program"), None);
}

#[test]
fn what_is_not_announced_is_a_complaint() {
    let log = "[t] [core:info] [pid 1:tid 1] fine\n\
               [t] [websocket:warn] [pid 1:tid 1] WS0009: odd\n\
               [t] [core:notice] [pid 1:tid 1] AH00052: child pid 5 exit signal Aborted (6)\n\
               panicked\n";
    let announce = |text: &str, required| Announced { text: text.to_owned(), required };
    assert_eq!(complaints(log, &[]).len(), 3);
    assert_eq!(complaints(log, &[announce("WS0009", true), announce("panicked", false)]).len(), 1);
    assert_eq!(complaints("", &[announce("WS0009", true), announce("WS0010", false)]).len(), 1);
}
