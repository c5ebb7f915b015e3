//! At startup: the publishing locations that nothing guards, as far as the configuration shows it without a request.
//!
//! What protects them is asked with each request ([`crate::apache::authz`]). This is for the administrator, who may have
//! thought otherwise.

use super::publish::HANDLER;
use crate::apache::authz::{self, ALL_METHODS, Line, Requires};
use crate::apache::conftree::{self, Written};

/// A section of the configuration, or what stands outside of all sections of a server.
struct Section {
    /// Which server it is in; the main server is the first.
    host: usize,
    kind: Kind,
    /// The path that it is for; `None` where that is a pattern, or no path.
    path: Option<String>,
    /// For the log.
    name: String,
    requires: Requires,
    /// `SetHandler websocket-publish` stands in it.
    publishes: bool,
    /// The section that it stands in, where that is not a server.
    outer: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    Directory,
    Location,
    Other,
}

/// A line for each of them in the current configuration.
pub fn warnings() -> Vec<String> {
    of(&conftree::tree(), &authz::method_bit)
}

type Method<'a> = &'a dyn Fn(&str) -> i64;

fn of(tree: &[Written], method: Method<'_>) -> Vec<String> {
    let server = |host| Section {
        host,
        kind: Kind::Server,
        path: Some("/".into()),
        name: "the server".into(),
        requires: Requires::default(),
        publishes: false,
        outer: None,
    };
    let mut sections = vec![server(0)];
    let mut roots = vec![None];
    gather(tree, 0, &mut sections, &mut roots, method);
    let is_open = |(at, section): (usize, &Section)| {
        let requires = effective(&sections, at, &roots);
        (section.publishes && !requires.guard(method("POST"))).then(|| {
            format!(
                "WS0225: nothing guards {}, where SetHandler {HANDLER} stands: only this machine may publish there; write \
                 \"Require local\" into it if that is meant, or \"Require ip ADDRESS\" or \"Require user NAME\"",
                section.name
            )
        })
    };
    sections.iter().enumerate().filter_map(is_open).collect()
}

/// Takes in what stands in the section `at`. `roots`: the document roots of the servers.
fn gather(
    within: &[Written],
    at: usize,
    sections: &mut Vec<Section>,
    roots: &mut Vec<Option<String>>,
    method: Method<'_>,
) {
    add_rules(&mut sections[at].requires, within, &mut Vec::new(), ALL_METHODS, method);
    for written in within {
        let arguments = written.arguments.trim().trim_end_matches('>');
        let host = sections[at].host;
        match written.name.to_ascii_lowercase().as_str() {
            "sethandler" => sections[at].publishes |= unquoted(arguments).eq_ignore_ascii_case(HANDLER),
            "documentroot" => roots[host] = Some(unquoted(arguments).to_owned()),
            name if name.starts_with("<require") || name.starts_with("<limit") => {}
            name if name.starts_with('<') => {
                let (kind, is_literal) = match name {
                    "<virtualhost" => (Kind::Server, true),
                    "<directory" => (Kind::Directory, true),
                    "<directorymatch" => (Kind::Directory, false),
                    "<location" => (Kind::Location, true),
                    "<locationmatch" => (Kind::Location, false),
                    _ => (Kind::Other, false),
                };
                let path = if kind == Kind::Server { "/" } else { unquoted(arguments) };
                let is_literal = is_literal && !path.starts_with('~') && !path.contains(['*', '?', '[']);
                let host = if kind == Kind::Server { roots.len() } else { host };
                if kind == Kind::Server {
                    roots.push(None);
                }
                let outer = (kind != Kind::Server && sections[at].kind != Kind::Server).then_some(at);
                sections.push(Section {
                    host,
                    kind,
                    path: is_literal.then(|| path.to_owned()),
                    name: format!("{} {arguments}> ({})", written.name, written.place),
                    requires: Requires::default(),
                    publishes: false,
                    outer,
                });
                let at = sections.len() - 1;
                gather(&written.within, at, sections, roots, method);
            }
            _ => {}
        }
    }
}

/// Adds the rules of a section: its own lines, and those in its `<Require…>` and `<Limit…>` sections.
fn add_rules(requires: &mut Requires, lines: &[Written], within: &mut Vec<String>, limited: i64, method: Method<'_>) {
    for line in lines {
        let arguments = line.arguments.trim();
        let methods = || {
            let names = arguments.trim_end_matches('>').split_whitespace();
            names.fold(0, |bits, name| bits | method(name))
        };
        match line.name.to_ascii_lowercase().as_str() {
            "require" => requires.add(Line { arguments, within, limited }, method),
            "authmerging" => requires.set_merging(arguments),
            "<limit" => add_rules(requires, &line.within, within, methods(), method),
            "<limitexcept" => add_rules(requires, &line.within, within, !methods(), method),
            name if name.starts_with("<require") => {
                within.push(line.name.clone());
                add_rules(requires, &line.within, within, limited, method);
                within.pop();
            }
            _ => {}
        }
    }
}

/// The rules that hold in a section, merged in the order in which httpd does it: directories from the shortest path on, then
/// locations, those of the main server first. What a URL is mapped to is taken to be below the document root.
fn effective(sections: &[Section], at: usize, roots: &[Option<String>]) -> Requires {
    let section = &sections[at];
    if let Some(outer) = section.outer {
        return section.requires.over(&effective(sections, outer, roots));
    }
    let path = section.path.as_deref().unwrap_or("/");
    let directory = match section.kind {
        Kind::Directory => Some(path.to_owned()),
        _ => roots[section.host]
            .as_ref()
            .or(roots[0].as_ref())
            .map(|root| format!("{}{path}", root.trim_end_matches('/'))),
    };
    let covers = |other: &Section, path: &str| {
        let is_near = other.outer.is_none() && (other.host == section.host || other.host == 0);
        is_near && other.path.as_deref().is_some_and(|outer| is_below(path, outer))
    };
    let mut chosen: Vec<(usize, &Section)> = Vec::new();
    for kind in [Kind::Directory, Kind::Location] {
        let path = if kind == Kind::Directory { directory.as_deref() } else { Some(path) };
        let others = sections.iter().enumerate().filter(|(_, other)| other.kind == kind);
        let others = others.filter(|(index, other)| {
            *index == at
                || (section.kind != Kind::Directory || kind == Kind::Directory)
                    && path.is_some_and(|path| covers(other, path))
        });
        let mut others: Vec<_> = others.collect();
        match kind {
            Kind::Directory => {
                others.sort_by_key(|(_, other)| (other.path.as_ref().map_or(usize::MAX, String::len), other.host))
            }
            _ => others.sort_by_key(|(_, other)| other.host),
        }
        chosen.extend(others);
    }
    let merged = chosen.iter().fold(Requires::default(), |requires, (_, other)| other.requires.over(&requires));
    if chosen.iter().any(|(index, _)| *index == at) { merged } else { section.requires.over(&merged) }
}

fn is_below(path: &str, outer: &str) -> bool {
    let outer = outer.trim_end_matches('/');
    path.trim_end_matches('/').strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads lines as they stand in a configuration.
    fn read(lines: &mut dyn Iterator<Item = &str>) -> Vec<Written> {
        let mut found = Vec::new();
        while let Some(line) = lines.next().map(str::trim).filter(|line| !line.starts_with("</")) {
            let (name, arguments) = line.split_once(' ').unwrap_or((line.trim_end_matches('>'), ">"));
            let within = if name.starts_with('<') { read(lines) } else { Vec::new() };
            found.push(Written { name: name.into(), arguments: arguments.into(), place: "x:1".into(), within });
        }
        found
    }

    /// The sections that are warned of.
    fn open(text: &str) -> Vec<String> {
        let bits = |name: &str| match name {
            "GET" => 1,
            "POST" => 4,
            _ => 0,
        };
        let lines = of(&read(&mut text.lines()), &bits);
        let name = |line: &String| {
            line["WS0225: nothing guards ".len()..].split(" (x:1)").next().unwrap_or_default().to_owned()
        };
        lines.iter().map(name).collect()
    }

    const PUBLISH: &str = "SetHandler websocket-publish";

    #[test]
    fn a_section_is_guarded_by_its_rules() {
        for rule in [
            "Require local",
            "<RequireAny>\nRequire ip 192.0.2.1\n</RequireAny>",
            "<Limit POST>\nRequire valid-user\n</Limit>",
        ] {
            assert_eq!(open(&format!("<Location \"/p\">\n{PUBLISH}\n{rule}\n</Location>")), [""; 0], "{rule}");
        }
        for rule in ["Options None", "Require all granted", "<LimitExcept POST>\nRequire valid-user\n</LimitExcept>"] {
            assert_eq!(
                open(&format!("<Location \"/p\">\n{PUBLISH}\n{rule}\n</Location>")),
                ["<Location \"/p\">"],
                "{rule}"
            );
        }
        assert_eq!(
            open("<LocationMatch \"^/p\">\nSetHandler \"Websocket-Publish\"\n</LocationMatch>"),
            ["<LocationMatch \"^/p\">"]
        );
        assert_eq!(open(PUBLISH).len(), 1);
        assert_eq!(open("<Location /p>\nSetHandler other\n</Location>"), [""; 0]);
    }

    #[test]
    fn rules_of_sections_around_it_count() {
        let publish = format!("<Location \"/a/p\">\n{PUBLISH}\n</Location>\n");
        for (guard, is_guarded) in [
            ("<Location \"/a\">\nRequire local\n</Location>", true),
            ("<Location \"/a/\">\nRequire local\n</Location>", true),
            ("<Location \"/a/p\">\nRequire local\n</Location>", true),
            ("<Location \"/\">\nRequire local\n</Location>", true),
            ("<Location \"/a/pp\">\nRequire local\n</Location>", false),
            ("<Location \"/b\">\nRequire local\n</Location>", false),
            ("<Directory \"/www\">\nRequire local\n</Directory>\nDocumentRoot \"/www/html\"", true),
            (
                "<Directory \"/\">\nRequire all denied\n</Directory>\n<Directory /www>\nRequire all granted\n</Directory>\nDocumentRoot /www",
                false,
            ),
            ("<Directory \"/other\">\nRequire local\n</Directory>\nDocumentRoot \"/www\"", false),
            ("<VirtualHost *:80>\n<Location \"/a\">\nRequire local\n</Location>\n</VirtualHost>", false),
        ] {
            for text in [format!("{publish}{guard}"), format!("{guard}\n{publish}")] {
                assert_eq!(open(&text).is_empty(), is_guarded, "{text}");
            }
        }
        let within = format!("<Location \"/a\">\nRequire local\n<If \"true\">\n{PUBLISH}\n</If>\n</Location>");
        assert_eq!(open(&within), [""; 0]);
    }

    #[test]
    fn virtual_hosts_are_apart() {
        let host = |rule: &str| {
            format!("<VirtualHost *:80>\n<Location \"/p\">\n{PUBLISH}\n{rule}\n</Location>\n</VirtualHost>\n")
        };
        assert_eq!(open(&format!("{}{}", host("Require local"), host("Options None"))).len(), 1);
        let of_all = "<Location \"/\">\nRequire local\n</Location>\n";
        assert_eq!(open(&format!("{}{of_all}", host("Options None"))), [""; 0]);
    }
}
