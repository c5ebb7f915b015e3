//! The docs: every link leads somewhere, and no page is too long.

use super::root;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// All pages, by their paths below the crate's root.
fn pages() -> BTreeMap<PathBuf, String> {
    fn collect(directory: &Path, pages: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(root().join(directory)).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = directory.join(entry.file_name());
            match entry.path().is_dir() {
                true => collect(&path, pages),
                false => drop(pages.insert(path, fs::read_to_string(entry.path()).expect("a page"))),
            }
        }
    }
    let mut pages = BTreeMap::new();
    collect(Path::new("docs"), &mut pages);
    for name in ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        pages.insert(name.into(), fs::read_to_string(root().join(name)).expect("a page"));
    }
    pages
}

/// The lines that are no code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// What the headings are called in links, by GitHub's rule.
fn anchors(page: &str) -> Vec<String> {
    let mut seen = HashMap::new();
    let headings = prose(page).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    let mut numbered = |anchor: String| {
        let times = seen.entry(anchor.clone()).and_modify(|times| *times += 1).or_insert(0);
        if *times == 0 { anchor } else { format!("{anchor}-{times}") }
    };
    headings.map(anchor).map(&mut numbered).collect()
}

/// Where the links of a page lead to.
fn links(page: &str) -> impl Iterator<Item = &str> {
    prose(page).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next())
}

/// The file that a link of a page names, below the crate's root.
fn file(page: &Path, link: &str) -> PathBuf {
    let mut file = page.parent().expect("a folder").to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => assert!(file.pop(), "{link} leads out of the repository"),
            part => file.push(part),
        }
    }
    file
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    for (name, page) in &pages {
        for link in links(page).filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let file = if path.is_empty() { name.clone() } else { file(name, path) };
            let found = match anchor {
                None => root().join(&file).exists(),
                Some(anchor) => pages.get(&file).is_some_and(|page| anchors(page).iter().any(|one| one == anchor)),
            };
            if !found {
                broken.push(format!("{}: {link}", name.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn all_pages_are_linked() {
    let pages = pages();
    let linked: Vec<_> = pages
        .iter()
        .flat_map(|(name, page)| links(page).map(move |link| (name, link)))
        .filter(|(_, link)| !link.contains("://") && !link.starts_with('#'))
        .map(|(name, link)| file(name, link.split('#').next().unwrap_or_default()))
        .collect();
    let lost: Vec<_> = pages.keys().filter(|name| name.starts_with("docs") && !linked.contains(name)).collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

#[test]
fn no_page_is_too_long() {
    for (name, page) in pages() {
        let most = match name.to_str() {
            Some("README.md") => 200,
            Some("CONTRIBUTING.md") => 60,
            _ => 300,
        };
        let lines = page.lines().count();
        assert!(lines <= most, "{} has {lines} lines", name.display());
    }
}
