//! `docs/reference/metrics.md`: every metric of the gateway and of the node, from their catalogs.

use super::{Page, cell};

const INTRODUCTION: &str = "\
Gateways and federation nodes answer `/metrics` on the address in `health.listen`, and gateways on
`admin.listen` too, in the text format of Prometheus. Besides these they tell the usual `process_*`
metrics. Counters begin at zero when the process starts.

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

/// The page for the catalogs of both, in their order.
pub fn page<'a>(
    gateway: impl IntoIterator<Item = Metric<'a>>,
    node: impl IntoIterator<Item = Metric<'a>>,
) -> Page {
    let source = "`gateway/src/metrics.rs` and `federation/src/health/metrics.rs`";
    let mut page = Page::new("docs/reference/metrics.md", "Metrics", source);
    page.text.push_str(INTRODUCTION);
    page.text.push_str("## Gateways\n\n");
    table(&mut page, gateway);
    page.text.push_str("\n## Federation nodes\n\n");
    table(&mut page, node);
    page
}

fn table<'a>(page: &mut Page, metrics: impl IntoIterator<Item = Metric<'a>>) {
    page.text.push_str("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, help } in metrics {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        page.text.push_str(&format!("| `{name}` | {kind} | {labels} | {} |\n", cell(help)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_a_row() {
        let labels = ["port", "role"];
        let metric = Metric { name: "fed_up", kind: "gauge", labels: &labels, help: "1 | 0." };
        let text = page([metric], [metric]).text;
        assert_eq!(text.matches("| `fed_up` |").count(), 2, "{text}");
        assert!(text.ends_with("| `fed_up` | gauge | `port`, `role` | 1 \\| 0. |\n"), "{text}");
    }
}
