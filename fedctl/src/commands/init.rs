//! `fedctl init`: a federation with this cluster as its root.

use serde::Serialize;
use wire::operator::proto::{FoundRequest, Founded};

use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{OutputFormat, Printer};
use crate::view::revision;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FoundedView {
    api_version: &'static str,
    kind: &'static str,
    federation: String,
    cluster: String,
    revision: String,
}

pub(super) async fn run(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let Founded { federation, cluster, revision: at } = node.found(FoundRequest {}).await?;
    let view = FoundedView {
        api_version: "fedgate.dev/v1alpha1",
        kind: "Founded",
        federation,
        cluster,
        revision: revision(at),
    };
    printer.result(&view, render)?;
    if printer.format == OutputFormat::Table {
        printer
            .talk("Next: fedctl token issue NAME · fedctl export NAMESPACE/NAME --to cluster=NAME");
    }
    Ok(())
}

fn render(view: &FoundedView) -> String {
    let FoundedView { federation, cluster, revision, .. } = view;
    format!(
        "Federation {federation} founded.\nThis cluster, {cluster}, is its root and its store's \
         one voter (revision {revision})."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn the_answer_is_as_golden() {
        let view = FoundedView {
            api_version: "fedgate.dev/v1alpha1",
            kind: "Founded",
            federation: "f0".repeat(16),
            cluster: "c0".repeat(16),
            revision: "1.2".into(),
        };
        golden::check("init.txt", &render(&view));
        golden::check("init.json", &serde_json::to_string_pretty(&view).unwrap());
    }
}
