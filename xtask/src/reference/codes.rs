//! `docs/reference/codes.md`: every failure code, from the registry in `model`.

use std::fmt::Write as _;

use model::code::{CODES, CodeEntry};

use super::{Page, cell};

const INTRODUCTION: &str = "\
Every failure that a person can meet has a code. It stands in logs, in the response header
`x-fed-code` and in what the command line prints. `fedctl explain` prints the same text as this
page. A code is never reused, and its meaning never changes.

";

/// First digit of a code, and what it is about.
const FAMILIES: [(u16, &str); 8] = [
    (1, "Install"),
    (2, "Tunnel"),
    (3, "Identity and trust"),
    (4, "Catalog"),
    (5, "Policy"),
    (6, "Store"),
    (7, "Routes"),
    (8, "Egress"),
];

pub(super) fn page() -> Page {
    let mut page = Page::new("docs/reference/codes.md", "Failure codes", "`model/src/code.rs`");
    page.text.push_str(INTRODUCTION);
    let write = write_families(&mut page.text, CODES);
    write.expect("writing to a String does not fail");
    page
}

fn write_families(page: &mut String, entries: &[CodeEntry]) -> std::fmt::Result {
    let mut first = true;
    for (digit, title) in FAMILIES {
        let mut family = entries.iter().filter(|e| e.code.number() / 1000 == digit).peekable();
        if family.peek().is_none() {
            continue;
        }
        let gap = if std::mem::take(&mut first) { "" } else { "\n" };
        writeln!(page, "{gap}## {title}")?;
        for entry in family {
            write_entry(page, entry)?;
        }
    }
    Ok(())
}

fn write_entry(page: &mut String, entry: &CodeEntry) -> std::fmt::Result {
    let CodeEntry { code, name, summary, cause, fix } = entry;
    write!(page, "\n### {code} {name}\n\n{}\n\n", cell(summary))?;
    write!(page, "- Usual cause: {}\n- What to do: {}\n", cell(cause), cell(fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_place_on_the_page() {
        let page = page();
        for entry in CODES {
            let heading = format!("\n### {} {}\n", entry.code, entry.name);
            assert_eq!(page.text.matches(&heading).count(), 1, "{heading}");
            assert!(page.text.contains(entry.fix), "{heading}");
        }
    }
}
