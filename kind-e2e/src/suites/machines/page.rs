//! `docs/guide/three-machines.md` as blocks of commands, each of which says on which machines it is run.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

const PAGE: &str = include_str!("../../../../docs/guide/three-machines.md");
/// The package is made already.
const MAKE: &str = "make deb\n";

/// A fenced block: `sh machine=east`, `yaml machine=west file=/etc/...`.
pub(super) struct Block {
    words: BTreeMap<String, String>,
    pub(super) text: String,
}

impl Block {
    pub(super) fn name(&self, word: &str) -> Option<&str> {
        self.words.get(word).map(String::as_str)
    }

    pub(super) fn names(&self, word: &str) -> impl Iterator<Item = &str> {
        self.name(word).into_iter().flat_map(|names| names.split(','))
    }
}

/// Those under a heading, in order.
pub(super) fn section(heading: &str) -> Result<Vec<Block>> {
    let (_, rest) = PAGE
        .split_once(&format!("\n## {heading}\n"))
        .with_context(|| format!("the page has no section {heading}"))?;
    let section = rest.split_once("\n## ").map_or(rest, |(section, _)| section);
    let blocks = blocks(section);
    ensure!(!blocks.is_empty(), "the section {heading} has no commands");
    Ok(blocks)
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let inside = lines.by_ref().take_while(|line| *line != "```");
        let text: String = inside.map(|line| format!("{line}\n")).collect();
        let words = info.split(' ').filter_map(|word| word.split_once('='));
        let words = words.map(|(name, value)| (name.into(), value.into())).collect();
        if text != MAKE {
            blocks.push(Block { words, text });
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: [&str; 8] = [
        "Make the package",
        "Configure",
        "Form a federation",
        "Export",
        "Call",
        "Change something",
        "Upgrade",
        "Uninstall",
    ];

    #[test]
    fn every_command_of_the_page_is_in_a_section_that_is_run_and_says_on_which_machine() {
        let run: Vec<Block> = RUN.iter().flat_map(|heading| section(heading).unwrap()).collect();
        assert_eq!(run.len(), blocks(PAGE).len());
        assert!(run.iter().all(|block| block.names("machine").count() > 0));
    }
}
