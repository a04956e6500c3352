//! `fedctl clusters`: the other clusters, and whether they can be reached.

use jiff::Timestamp;

use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{Printer, age, milliseconds};
use crate::view::{ClusterView, List};

const HEADER: [&str; 7] =
    ["CLUSTER", "STATE", "LINKS", "RTT", "SERVICES", "TRUST DOMAIN", "LAST ERROR"];

pub(super) async fn run(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    printer.result(&fetch(node).await?, |list| {
        let mut text = list.table(&HEADER, row);
        for cluster in &list.items {
            if let Some(cordon) = &cluster.cordon {
                text.push_str(&format!("\n{}", cordon.line(&cluster.name)));
            }
        }
        text
    })
}

pub(super) async fn fetch(node: &Operator) -> Result<List<ClusterView>, CommandError> {
    let now = Timestamp::now();
    let clusters = node.clusters().await?;
    let views = clusters.clusters.into_iter().map(|cluster| ClusterView::of(cluster, now));
    Ok(List::new("ClusterList", clusters.note, views.collect()))
}

fn row(cluster: &ClusterView) -> Vec<String> {
    let error = cluster
        .last_error
        .as_ref()
        .map(|fault| format!("{} {} ({} ago)", fault.code, fault.text, age(fault.since.age_ms)));
    let links = format!("{}/{}", cluster.links_live, cluster.links_total);
    let own = cluster.state == "Local";
    vec![
        cluster.name.clone(),
        cluster.shown_state(),
        if own { "-".into() } else { links },
        cluster.rtt_us.map_or_else(|| "-".into(), milliseconds),
        cluster.services.to_string(),
        cluster.trust_domains.join(", "),
        error.unwrap_or_else(|| "-".into()),
    ]
}
