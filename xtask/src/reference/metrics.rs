//! `docs/reference/metrics.md`: every metric of the gateway, from its catalog.

use super::{Page, cell};

const INTRODUCTION: &str = "\
A gateway answers `/metrics` on its admin address in the text format of Prometheus. Besides these it
tells the usual `process_*` metrics. Counters begin at zero when the process starts.

";

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric<'a> {
    pub name: &'a str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'a str,
    pub labels: &'a [&'a str],
    pub help: &'a str,
}

/// The page for a catalog, in its order.
pub fn page<'a>(metrics: impl IntoIterator<Item = Metric<'a>>) -> Page {
    let mut page = Page::new("docs/reference/metrics.md", "Metrics", "`gateway/src/metrics.rs`");
    page.text.push_str(INTRODUCTION);
    page.text.push_str("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, help } in metrics {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        page.text.push_str(&format!("| `{name}` | {kind} | {labels} | {} |\n", cell(help)));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_a_row() {
        let labels = ["port", "role"];
        let metric = Metric { name: "fed_up", kind: "gauge", labels: &labels, help: "1 | 0." };
        let text = page([metric]).text;
        assert!(text.ends_with("| `fed_up` | gauge | `port`, `role` | 1 \\| 0. |\n"), "{text}");
    }
}
