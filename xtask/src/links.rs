//! Links, anchors and paths in documents, and the table of contents of the book.
//!
//! What leads outside of the tree is not looked at: a check that needs the network fails for reasons of others.

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{BrokenLink, Event, LinkType, Options, Parser, Tag, TagEnd};

use crate::rules::Failure;
use crate::workspace::Workspace;

const BOOK: &str = "docs/";
const SUMMARY: &str = "docs/SUMMARY.md";

/// A document as its links see it.
#[derive(Default)]
struct Page {
    anchors: BTreeSet<String>,
    /// Line and target.
    links: Vec<(usize, String)>,
    /// Lines and names of references that nothing defines.
    undefined: Vec<(usize, String)>,
    /// Line and text of what stands in backticks.
    codes: Vec<(usize, String)>,
}

/// Every link, anchor, reference, include and path that leads nowhere.
pub(crate) fn check(workspace: &Workspace) -> Vec<Failure> {
    let pages: BTreeMap<&str, Page> =
        workspace.documents().map(|(path, text)| (path, Page::read(text))).collect();
    let mut failures = Vec::new();
    for (path, page) in &pages {
        for (line, target) in &page.links {
            if let Err((what, remedy)) = follow(workspace, &pages, path, target) {
                failures.push(Failure::at(*path, *line, what, remedy));
            }
        }
        for (line, name) in &page.undefined {
            let what = format!("nothing defines the reference [{name}]");
            failures.push(Failure::at(*path, *line, what, "write the link in place, or define it"));
        }
        for (line, code) in page.codes.iter().filter(|(_, code)| is_lost(workspace, code)) {
            failures.push(lost(path, *line, code));
        }
        failures.extend(includes(workspace, path));
    }
    failures.extend(remarks(workspace));
    failures
}

/// Paths in backticks in comments of sources.
fn remarks(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (path, source) in workspace.sources() {
        for (number, line) in source.numbered() {
            let codes = line.comment.split('`').skip(1).step_by(2);
            failures
                .extend(codes.filter(|code| is_lost(workspace, code)).map(|code| lost(path, number, code)));
        }
    }
    failures
}

fn lost(path: &str, line: usize, code: &str) -> Failure {
    Failure::at(path, line, format!("`{code}` is not in the tree"), "name what took its place")
}

/// Whether a code looks like a path of the tree and is none. Names with slashes are no paths: those of benches.
fn is_lost(workspace: &Workspace, code: &str) -> bool {
    let is_plain = code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
    let Some((top, rest)) = code.split_once('/') else { return false };
    // As in `extensions/NAME`.
    let is_blank = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_plain || top.is_empty() || rest.is_empty() || rest.split('/').any(is_blank) {
        return false;
    }
    let is_path = match rest.split_once('/') {
        None | Some((_, "")) => true,
        Some((second, _)) => {
            code.ends_with('/') || code.contains('.') || workspace.is_folder(&format!("{top}/{second}"))
        }
    };
    is_path && workspace.is_folder(top) && !workspace.exists(code)
}

/// `{{#include path}}` and its kin.
fn includes(workspace: &Workspace, path: &str) -> Vec<Failure> {
    let text = workspace.text(path).unwrap_or_default();
    let mut failures = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for command in
            line.split("{{#").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(command, _)| command)
        {
            let Some((name, target)) = command.split_once(' ') else { continue };
            let file = target.split([':', ' ']).next().unwrap_or_default();
            let is_file = ["include", "rustdoc_include", "playground"].contains(&name);
            if is_file && resolve(path, file).is_none_or(|file| workspace.text(&file).is_none()) {
                let what = format!("includes `{file}`, which is not there");
                failures.push(Failure::at(path, index + 1, what, "name a file, relative to the page"));
            }
        }
    }
    failures
}

fn follow(
    workspace: &Workspace,
    pages: &BTreeMap<&str, Page>,
    from: &str,
    target: &str,
) -> Result<(), (String, &'static str)> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return Ok(());
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() { Some(from.to_owned()) } else { resolve(from, &decoded(file)) };
    let Some(path) = path.filter(|path| workspace.exists(path)) else {
        return Err((format!("`{target}` leads nowhere"), "name a file of the tree, relative to the page"));
    };
    if from.starts_with(BOOK) && !path.starts_with(BOOK) {
        let remedy = "the book does not hold it: name the path in backticks";
        return Err((format!("`{target}` leaves the book"), remedy));
    }
    if from.starts_with(BOOK) && !workspace.has_file(&path) {
        return Err((format!("`{target}` is a folder, which the book has no page for"), "name a page in it"));
    }
    if let (Some(anchor), Some(page)) = (anchor, pages.get(path.as_str()))
        && !page.anchors.contains(anchor)
    {
        return Err((
            format!("`{target}`: the page has no heading of that name"),
            "name a heading as it is now",
        ));
    }
    Ok(())
}

/// A target without its `%20` and the like. What is none of these stays as it is.
fn decoded(target: &str) -> String {
    let mut parts = target.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                decoded.extend(&part.as_bytes()[2..]);
            }
            None => {
                decoded.push(b'%');
                decoded.extend(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The values of one attribute in HTML, in either kind of quotes.
fn html_values<'a>(html: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    html.match_indices(name).filter_map(move |(at, found)| {
        let is_whole = html[..at].ends_with(char::is_whitespace);
        let value = html[at + found.len()..].trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|quote| is_whole && ['"', '\''].contains(quote))?;
        value[1..].split_once(quote).map(|(value, _)| value)
    })
}

/// `target` as a path below the root. `None`: outside of it.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Pages that the book does not show, shows twice, or shows without having them.
pub(crate) fn summary(workspace: &Workspace) -> Vec<Failure> {
    let Some(text) = workspace.text(SUMMARY) else {
        return vec![Failure::of(SUMMARY, "is missing", "it lists the book's pages")];
    };
    let listed: Vec<(usize, Option<String>)> =
        Page::read(text).links.iter().map(|(line, target)| (*line, resolve(SUMMARY, target))).collect();
    let mut failures = Vec::new();
    for (path, _) in workspace.documents().filter(|(path, _)| path.starts_with(BOOK) && *path != SUMMARY) {
        match listed.iter().filter(|(_, listed)| listed.as_deref() == Some(path)).count() {
            1 => {}
            0 => {
                failures.push(Failure::of(SUMMARY, format!("does not list `{path}`"), "give the page a line"))
            }
            _ => {
                failures.push(Failure::of(SUMMARY, format!("lists `{path}` more than once"), "keep one line"))
            }
        }
    }
    failures
}

impl Page {
    fn read(text: &str) -> Self {
        let starts: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(place, _)| place + 1)).collect();
        let line_of = |offset: usize| starts.partition_point(|start| *start <= offset);
        let mut page = Self::default();
        let mut undefined = Vec::new();
        let mut note = |link: BrokenLink<'_>| {
            // A word in brackets is prose; two brackets mean a link.
            if matches!(link.link_type, LinkType::Reference | LinkType::Collapsed) {
                undefined.push((line_of(link.span.start), link.reference.to_string()));
            }
            None
        };
        let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_HEADING_ATTRIBUTES;
        let parser = Parser::new_with_broken_link_callback(text, options, Some(&mut note));
        let mut heading: Option<(Option<String>, String)> = None;
        for (event, range) in parser.into_offset_iter() {
            match event {
                Event::Start(Tag::Heading { id, .. }) => {
                    heading = Some((id.map(|id| id.to_string()), String::new()));
                }
                Event::End(TagEnd::Heading(_)) => {
                    if let Some((id, text)) = heading.take() {
                        page.add_anchor(&id.unwrap_or_else(|| anchor_of(&text)));
                    }
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push((line_of(range.start), dest_url.to_string()));
                }
                Event::Text(text) => heading.iter_mut().for_each(|(_, heading)| heading.push_str(&text)),
                Event::Code(text) => {
                    heading.iter_mut().for_each(|(_, heading)| heading.push_str(&text));
                    page.codes.push((line_of(range.start), text.to_string()));
                }
                Event::Html(html) | Event::InlineHtml(html) => {
                    page.anchors.extend(html_values(&html, "id").map(str::to_owned));
                    let targets = ["href", "src"].into_iter().flat_map(|name| html_values(&html, name));
                    page.links.extend(targets.map(|target| (line_of(range.start), target.to_owned())));
                }
                _ => {}
            }
        }
        page.undefined = undefined;
        page
    }

    /// Headings of one name are numbered from the second on.
    fn add_anchor(&mut self, anchor: &str) {
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let free =
            std::iter::once(anchor.to_owned()).chain(numbered).find(|name| !self.anchors.contains(name));
        self.anchors.extend(free);
    }
}

/// What a heading is called in a link: small letters, blanks as hyphens, no other signs.
fn anchor_of(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_named_as_the_book_names_them() {
        let page = Page::read("# A `--flag`, now\n## Same\n## Same\n### Own {#mine}\n<a id=\"old\"></a>\n");
        let anchors: Vec<_> = page.anchors.iter().map(String::as_str).collect();
        assert_eq!(anchors, ["a---flag-now", "mine", "old", "same", "same-1"]);
    }

    #[test]
    fn links_have_lines_and_code_has_none() {
        let page = Page::read("a\n[b](c.md#d) [not a link]\n\n```\n[e](f.md)\n```\n[g][h] `i/j`\n");
        assert_eq!(page.links, [(2, "c.md#d".to_owned())]);
        assert_eq!(page.undefined, [(7, "h".to_owned())]);
        assert_eq!(page.codes, [(7, "i/j".to_owned())]);
    }

    #[test]
    fn links_in_html_are_links() {
        let page =
            Page::read("<a href=\"b.md\">b</a>\n\n<div>\n<img alt='' src='c.svg'>\n</div>\n\n<!-- d -->\n");
        assert_eq!(page.links, [(1, "b.md".to_owned()), (4, "c.svg".to_owned())]);
        assert_eq!(html_values("<a data-href='x' href=\"y\">", "href").collect::<Vec<_>>(), ["y"]);
    }

    #[test]
    fn signs_in_links_are_decoded() {
        for (target, expected) in
            [("a%20b.md", "a b.md"), ("100%.md", "100%.md"), ("%2e%2E/a", "../a"), ("%", "%")]
        {
            assert_eq!(decoded(target), expected);
        }
    }

    #[test]
    fn paths_are_relative_to_their_page() {
        assert_eq!(resolve("docs/adr/1.md", "../a/./b.md").as_deref(), Some("docs/a/b.md"));
        assert_eq!(resolve("README.md", "docs/").as_deref(), Some("docs"));
        assert_eq!(resolve("README.md", "../x"), None);
    }
}
