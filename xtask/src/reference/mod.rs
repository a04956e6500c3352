//! Files that are generated from the code: pages under `docs/reference/`, and the chart of custom
//! resource definitions. A test keeps each one current.

mod cli;
mod codes;
mod definitions;
mod limits;
mod metrics;
mod values;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::repo::Repo;

pub use cli::page as cli_page;
pub use definitions::pages as definition_pages;
pub use metrics::{Metric, page as metrics_page};
pub use values::{Entry, entries as values_entries, pages as values_pages};

/// The pages that can be made without linking the processes.
pub fn pages(repo: &Repo) -> Result<Vec<Page>> {
    Ok(vec![codes::page(), limits::page(repo)?])
}

/// A generated page.
#[derive(Debug)]
pub struct Page {
    /// Path from the top of the repository.
    pub path: &'static str,
    pub text: String,
}

impl Page {
    /// Begins a page with its title and the note that it is generated.
    pub fn new(path: &'static str, title: &str, source: &str) -> Self {
        let note = "Edit the source, then run `make docs`.";
        Self { path, text: format!("# {title}\n\n<!-- Generated from {source}. {note} -->\n\n") }
    }

    /// With `UPDATE=1` in the environment writes the page; else fails if the file differs from it.
    pub fn settle(&self, root: &Path) -> Result<()> {
        let file = root.join(self.path);
        if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
            return std::fs::write(&file, &self.text)
                .with_context(|| format!("cannot write {}", file.display()));
        }
        let current = std::fs::read_to_string(&file).unwrap_or_default();
        if current == self.text {
            return Ok(());
        }
        let pairs = current.lines().zip(self.text.lines());
        let line = pairs.take_while(|(have, want)| have == want).count() + 1;
        bail!("{}:{line}: out of date; run `make docs` and commit the page", self.path)
    }
}

/// Makes text fit for a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_differs_is_reported_with_its_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let page = Page { path: "page.md", text: "a\nb\nc\n".to_owned() };
        std::fs::write(dir.path().join("page.md"), "a\nB\nc\n").unwrap();
        let error = page.settle(dir.path()).unwrap_err().to_string();
        assert_eq!(error, "page.md:2: out of date; run `make docs` and commit the page");
        std::fs::write(dir.path().join("page.md"), "a\nb\nc\n").unwrap();
        page.settle(dir.path()).unwrap();
    }
}
