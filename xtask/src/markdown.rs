//! Just enough Markdown for the rules: fenced blocks, links, code spans and headings, with lines.

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// First word after the fence's backticks.
    pub language: String,
    /// Line of the block's first line of content, counted from 1.
    pub line: usize,
    pub text: String,
}

/// A thing found in the running text (not inside a fence).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    pub line: usize,
    pub text: String,
}

/// All fenced blocks of a page.
pub fn fences(page: &str) -> Vec<Fence> {
    let mut fences: Vec<Fence> = Vec::new();
    let mut open: Option<(String, usize)> = None;
    for (index, line) in page.lines().enumerate() {
        let (ticks, indent) = opening(line);
        match &open {
            None if ticks >= 3 => {
                let language = line.trim().trim_start_matches('`');
                let language = language.split_whitespace().next().unwrap_or("").to_owned();
                open = Some(("`".repeat(ticks), indent));
                fences.push(Fence { language, line: index + 2, text: String::new() });
            }
            Some((marker, _)) if line.trim() == marker => open = None,
            Some((_, indent)) => {
                let fence = fences.last_mut().expect("an open fence was pushed");
                let cut = line.len() - line.trim_start().len();
                fence.text.push_str(&line[cut.min(*indent)..]);
                fence.text.push('\n');
            }
            None => {}
        }
    }
    fences
}

/// Targets of all inline links and images: the part in round brackets, without a title.
pub fn links(page: &str) -> Vec<Spot> {
    let mut links = Vec::new();
    for (line, text) in prose(page) {
        let text = without_code(&text);
        let mut rest = text.as_str();
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let Some(end) = rest.find(')') else { break };
            let target = rest[..end].split_whitespace().next().unwrap_or("");
            links.push(Spot { line, text: target.to_owned() });
            rest = &rest[end..];
        }
    }
    links
}

/// All code spans with single backticks.
pub fn code_spans(page: &str) -> Vec<Spot> {
    prose(page)
        .flat_map(|(line, text)| {
            let spans = text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
            spans.into_iter().map(move |text| Spot { line, text })
        })
        .collect()
}

/// The anchors of all headings, made as code hosts make them.
pub fn anchors(page: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, text) in prose(page) {
        let title = text.trim_start_matches('#');
        if title.len() == text.len() || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let twins = anchors.iter().filter(|known| **known == slug).count();
        anchors.push(if twins == 0 { slug } else { format!("{slug}-{twins}") });
    }
    anchors
}

/// Lines outside fences, counted from 1.
pub fn prose(page: &str) -> impl Iterator<Item = (usize, String)> {
    let mut marker: Option<String> = None;
    page.lines().enumerate().filter_map(move |(index, line)| {
        let (ticks, _) = opening(line);
        match &marker {
            None if ticks >= 3 => marker = Some("`".repeat(ticks)),
            None => return Some((index + 1, line.to_owned())),
            Some(open) if line.trim() == open => marker = None,
            Some(_) => {}
        }
        None
    })
}

/// How many backticks a line begins with, and how far it is indented.
fn opening(line: &str) -> (usize, usize) {
    let trimmed = line.trim_start();
    let ticks = trimmed.len() - trimmed.trim_start_matches('`').len();
    // "```x```" on one line is a code span.
    let ticks = if trimmed[ticks..].contains('`') { 0 } else { ticks };
    (ticks, line.len() - trimmed.len())
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# The `demo` of it\n\nSee [a](b.md#c \"t\"), `[x](y)` and ![i](i.png).\n\n\
        1. step\n   ```sh title\n   make demo\n     in\n   ```\n## Demo\n## Demo\n```\n[n](o)\n```\n";

    #[test]
    fn fences_keep_language_line_and_relative_indent() {
        let fences = fences(PAGE);
        assert_eq!(fences.len(), 2);
        assert_eq!((fences[0].language.as_str(), fences[0].line), ("sh", 7));
        assert_eq!(fences[0].text, "make demo\n  in\n");
        assert_eq!((fences[1].language.as_str(), fences[1].text.as_str()), ("", "[n](o)\n"));
    }

    #[test]
    fn links_come_from_prose_only() {
        let links: Vec<_> = links(PAGE).into_iter().map(|spot| (spot.line, spot.text)).collect();
        assert_eq!(links, [(3, "b.md#c".to_owned()), (3, "i.png".to_owned())]);
    }

    #[test]
    fn headings_become_anchors() {
        assert_eq!(anchors(PAGE), ["the-demo-of-it", "demo", "demo-1"]);
    }

    #[test]
    fn code_spans_come_from_prose_only() {
        let spans: Vec<_> = code_spans(PAGE).into_iter().map(|spot| spot.text).collect();
        assert_eq!(spans, ["demo", "[x](y)"]);
    }
}
