//! `fedctl services`: what can be reached, where it runs, and who may come.

use std::collections::BTreeMap;

use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::Printer;
use crate::view::{List, ServiceView};

const HEADER: [&str; 6] =
    ["SERVICE", "PORTS", "EXPORTED", "IMPORTED FROM", "REACHABLE IN", "ROUTES"];

pub(super) async fn run(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let services = node.services().await?;
    let views = services.services.into_iter().map(ServiceView::of).collect();
    printer.result(&List::new("ServiceList", services.note, views), |list| list.table(&HEADER, row))
}

fn row(service: &ServiceView) -> Vec<String> {
    let ports = service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol));
    let exported = match (service.exported, service.allow_entries) {
        (false, _) => "-".into(),
        (true, 0) => "to nobody".into(),
        (true, 1) => "to 1 rule".into(),
        (true, entries) => format!("to {entries} rules"),
    };
    vec![
        format!("{}/{}", service.namespace, service.name),
        ports.collect::<Vec<_>>().join(", "),
        exported,
        or_dash(service.imported_from.join(", ")),
        or_dash(reachable(service)),
        or_dash(service.routes.join(", ")),
    ]
}

/// Clusters that can serve it now; `east 2/3` when endpoints are known and some are not ready.
fn reachable(service: &ServiceView) -> String {
    let mut clusters: BTreeMap<&str, String> = BTreeMap::new();
    for place in service.reachable.iter().filter(|place| place.usable) {
        let text = match (place.endpoints_ready, place.endpoints_total) {
            (Some(ready), Some(total)) => format!("{} {ready}/{total}", place.cluster),
            _ => place.cluster.clone(),
        };
        clusters.entry(&place.cluster).or_insert(text);
    }
    clusters.into_values().collect::<Vec<_>>().join(", ")
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}
