//! `fedctl links`: every connection between this cluster's gateways and others'.

use jiff::Timestamp;

use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{Printer, age, milliseconds};
use crate::view::{LinkView, List};

const HEADER: [&str; 10] =
    ["CLUSTER", "GATEWAY", "CLASS", "STATE", "SINCE", "RTT", "LOSS", "SENT", "RECEIVED", "ADDRESS"];

pub(super) async fn run(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let now = Timestamp::now();
    let links = node.links().await?;
    let views = links.links.into_iter().filter_map(|link| LinkView::of(link, now)).collect();
    printer.result(&List::new("LinkList", links.note, views), |list| {
        let mut text = list.table(&HEADER, row);
        for link in &list.items {
            if let Some(fault) = link.last_error.as_ref().filter(|_| link.state != "Up") {
                let (code, why, since) = (&fault.code, &fault.text, age(fault.since.age_ms));
                text.push_str(&format!("\n{}: {code} {why} ({since} ago)", link.cluster));
            }
        }
        text
    })
}

fn row(link: &LinkView) -> Vec<String> {
    vec![
        link.cluster.clone(),
        link.gateway.clone(),
        format!("{} {}", link.transport, link.class).trim().into(),
        state(link).into(),
        age(link.since.age_ms),
        link.rtt_us.map_or_else(|| "-".into(), milliseconds),
        format!("{:.1}%", link.loss_percent()),
        bytes(link.bytes_sent),
        bytes(link.bytes_received),
        link.address.clone(),
    ]
}

/// A link of which another one has taken the place is up until its exchanges have ended.
fn state(link: &LinkView) -> &'static str {
    if link.retiring && link.state == "Up" { "Retiring" } else { link.state }
}

/// `512 B`, `1.5 KiB`, `3.0 GiB`.
fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut value, mut unit) = (count as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use wire::operator::proto::GatewayLink;
    use wire::resource::proto::{Link, LinkState};

    use super::*;

    #[test]
    fn a_link_that_is_replaced_is_told_apart() {
        let shown = |state: LinkState, retiring| {
            let link = Some(Link { state: state.into(), retiring, ..Link::default() });
            let view =
                LinkView::of(GatewayLink { link, ..GatewayLink::default() }, Timestamp::now());
            let view = view.unwrap();
            (row(&view)[3].clone(), serde_json::to_value(&view).unwrap()["retiring"].clone())
        };
        for (state, retiring, want) in [
            (LinkState::Live, false, "Up"),
            (LinkState::Live, true, "Retiring"),
            (LinkState::Draining, true, "Draining"),
        ] {
            assert_eq!(shown(state, retiring), (want.to_string(), retiring.into()));
        }
    }

    #[test]
    fn bytes_read_well() {
        for (count, want) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")]
        {
            assert_eq!(bytes(count), want);
        }
    }
}
