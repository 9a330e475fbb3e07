//! Every link of the documentation leads to a file that exists, and to a heading of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::pages::{Page, page, pages, root};

/// Returns the targets of the links of a page that are no addresses of the web.
fn links(page: &Page) -> Vec<String> {
    let prose = page.prose().join("\n");
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// Resolves `..` in a path, as a browser does.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(normal.pop(), "{} leaves the root", path.display()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// Returns the anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let headings = page.prose().into_iter().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = |c: char| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            };
            let anchor: String = text.chars().filter_map(kept).collect();
            let count = seen.entry(anchor.clone()).or_insert(0);
            *count += 1;
            if *count == 1 { anchor } else { format!("{anchor}-{}", *count - 1) }
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    for source in pages() {
        for link in links(&source) {
            let (path, anchor) = match link.split_once('#') {
                Some((path, anchor)) => (path, Some(anchor)),
                None => (link.as_str(), None),
            };
            let folder = source.path.parent().unwrap_or(Path::new(""));
            let target =
                if path.is_empty() { source.path.clone() } else { normal(&folder.join(path)) };
            let exists = root().join(&target).exists();
            let has_anchor = anchor.is_none_or(|anchor| {
                exists
                    && target.extension().is_some_and(|extension| extension == "md")
                    && anchors(&page(&target)).contains(anchor)
            });
            if !exists || !has_anchor {
                dead.push(format!("{}: {link}", source.path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn links_of_the_book_lead_into_the_book_or_its_copies() {
    // tests/docs/build.sh copies these beside the book. mdBook turns each link to a page into one
    // to HTML, which exists for the pages of the book only.
    const COPIES: [&str; 6] = ["docs", "benches", "config", "deploy", "src", "tests"];
    for source in pages().iter().filter(|page| page.path.starts_with("docs")) {
        for link in links(source) {
            let path = link.split('#').next().unwrap_or_default();
            let target = normal(&source.path.parent().expect("a folder").join(path));
            let is_page = target.extension().is_some_and(|extension| extension == "md");
            assert!(
                !is_page || target.starts_with("docs"),
                "{}: link to the folder of {link} instead",
                source.path.display()
            );
            assert!(
                COPIES.iter().any(|folder| target.starts_with(folder)),
                "{}: {link} is not in the book",
                source.path.display()
            );
        }
    }
}

#[test]
fn the_summary_lists_every_page_once() {
    let summary = page("docs/SUMMARY.md");
    let mut listed = links(&summary);
    listed.sort();
    let pages = pages();
    let book = pages.iter().filter_map(|page| page.path.strip_prefix("docs").ok());
    let mut book: Vec<String> = book.map(|path| path.display().to_string()).collect();
    book.retain(|path| path != "SUMMARY.md");
    assert_eq!(listed, book);
}

#[test]
fn the_readme_is_short() {
    let lines = page("README.md").text.lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; move something into docs/");
}

#[test]
fn every_path_in_backticks_exists() {
    const FOLDERS: [&str; 8] =
        ["benches/", "config/", "deploy/", "docs/", "packaging/", "src/", "tests/", ".ci/"];
    for source in pages() {
        for quoted in source.quoted() {
            let is_path = FOLDERS.iter().any(|folder| quoted.starts_with(folder))
                && !quoted.contains([' ', '*', '{'])
                && !quoted.contains("NAME");
            assert!(
                !is_path || root().join(&quoted).exists(),
                "{}: there is no {quoted}",
                source.path.display()
            );
        }
    }
}
