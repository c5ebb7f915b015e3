//! The floors of the house: imports go down only, and no handler knows another.

use super::{Source, compare, root, sources};

/// From below. The rooms of one floor know nothing of each other.
const FLOORS: [&[&str]; 6] =
    [&["apache", "wire", "tls", "mux"], &["engine"], &["channels"], &["front"], &["handlers"], &["module"]];

const EXCEPTIONS: &[&str] = &[
    // Their tests need some handler, and this is the least that can be one.
    "engine/session_task: handlers::echo",
    "engine/tests: handlers::echo",
    // Theirs need one whose rights change.
    "engine/application/recheck/tests: channels",
    "engine/application/recheck/tests: channels::subscription",
    "engine/application/recheck/tests: handlers::channel",
    "engine/application/recheck/tests: handlers::echo",
];

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        let names = source.path.split('/').collect::<Vec<_>>();
        let [room, folder, _, ..] = [names.as_slice(), &["", ""]].concat()[..] else { unreachable!() };
        let Some(floor) = floor_of(room) else { continue };
        for path in imports(&source) {
            let mut parts = path.split("::");
            let (to, within) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let goes_up = to != room && floor_of(to).is_none_or(|to| to >= floor);
            let is_a_folder = |name: &str| !name.is_empty() && root().join("src/handlers").join(name).is_dir();
            let goes_aside =
                [room, to] == ["handlers"; 2] && folder != within && is_a_folder(folder) && is_a_folder(within);
            if goes_up || goes_aside {
                let module = within.starts_with(char::is_lowercase).then(|| format!("::{within}"));
                wrong.push(format!("{}: {to}{}", source.path, module.unwrap_or_default()));
            }
        }
    }
    wrong.dedup();
    compare(wrong, EXCEPTIONS);
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The paths in this crate that a file names, from its root.
fn imports(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut module: Vec<&str> = source.path.split('/').filter(|part| *part != "mod").collect();
    for (part, is_test) in [(source.code(), false), (&source.text[source.code().len()..], true)] {
        if is_test && !source.code().is_empty() {
            module.push("tests");
        }
        let lines: Vec<&str> = part.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let text = lines.join("\n");
        found.extend(text.match_indices("crate::").flat_map(|(at, crate_)| paths(&text[at + crate_.len()..])));
        for (at, _) in text.match_indices("super::").filter(|(at, _)| !text[..*at].ends_with("super::")) {
            let rest = text[at..].trim_start_matches("super::");
            let above = (text.len() - at - rest.len()) / "super::".len();
            let stem: String =
                module[..module.len().saturating_sub(above)].iter().map(|part| format!("{part}::")).collect();
            found.extend(paths(rest).iter().map(|path| format!("{stem}{path}")));
        }
    }
    found.sort();
    found
}

/// What a tree of names stands for: `a::{b, c::d}` for `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let end = tree.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(tree.len());
    let (stem, rest) = tree.split_at(end);
    let (mut depth, mut begin, mut branches) = (0, 1, Vec::new());
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && byte == b',') {
            branches.extend(rest.get(begin..at).map(str::trim).filter(|branch| !branch.is_empty()));
            begin = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    match rest.starts_with('{') {
        true => branches.into_iter().flat_map(paths).map(|path| format!("{stem}{path}")).collect(),
        false => vec![stem.to_owned()],
    }
}

#[test]
fn trees_are_read() {
    assert_eq!(paths("a::{b, c::{d, E},\n f::*};"), ["a::b", "a::c::d", "a::c::E", "a::f::"]);
    assert_eq!(paths("{a, b::c}; {"), ["a", "b::c"]);
    assert_eq!(paths("a::b(c, {d})"), ["a::b"]);
    let text =
        "use super::super::x::{y, z};\n// crate::no\n#[cfg(test)]\nmod tests {\n use super::w;\n crate::v::u() }";
    let source = Source { path: "a/b/mod".to_owned(), text: text.to_owned() };
    assert_eq!(imports(&source), ["a::b::w", "v::u", "x::y", "x::z"]);
}
