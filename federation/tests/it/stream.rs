//! The resource stream: snapshot, deltas, resuming, restarts, slow readers, broken rules.

use std::time::{SystemTime, UNIX_EPOCH};

use model::{Resource, ResourceKey, ResourceKind, ResourceSet, Revision};
use wire::operator::proto::GetStatusRequest;
use wire::resource::proto::{self, gateway_message::Message};

use crate::fixture::{EXPORT, Gateway, SERVICE, Site, operator, until};

fn has(resources: &ResourceSet, kind: ResourceKind) -> bool {
    resources.iter().any(|(key, _)| key.kind == kind)
}

fn keys(delta: &wire::resource::Delta) -> Vec<String> {
    delta.upserts.iter().map(|resource| resource.key().to_string()).collect()
}

#[tokio::test]
async fn a_subscriber_gets_a_snapshot_and_then_what_changes() {
    let site = Site::new();
    site.write("service.yaml", SERVICE);
    let node = site.start().await;
    let mut gateway = Gateway::subscribe(&node, "gw-0", None).await;
    let first = gateway.next().await;
    assert!(first.is_snapshot());
    assert_eq!(keys(&first), ["Service/shop/api"]);
    assert_eq!(first.to.index, 1);

    site.write("export.yaml", EXPORT);
    let second = gateway.next().await;
    assert_eq!(second.from, Some(first.to));
    assert_eq!(keys(&second), ["ServiceExport/shop/api"]);

    site.write("service.yaml", &SERVICE.replace("80", "81"));
    let third = gateway.next().await;
    assert_eq!(keys(&third), ["Service/shop/api"]);
    assert!(matches!(&third.upserts[0], Resource::Service(service) if service.ports[0].port == 81));

    site.remove("export.yaml");
    let fourth = gateway.next().await;
    let removed: Vec<String> = fourth.removes.iter().map(ResourceKey::to_string).collect();
    assert_eq!(removed, ["ServiceExport/shop/api"]);
    node.stop().await;
}

#[tokio::test]
async fn a_gateway_that_reconnects_gets_only_the_difference() {
    let site = Site::new();
    site.write("service.yaml", SERVICE);
    let node = site.start().await;
    let mut first = Gateway::subscribe(&node, "gw-0", None).await;
    first.next().await;
    let (have, resources) = (first.revision, first.resources.clone());
    drop(first);

    site.write("export.yaml", EXPORT);
    let mut witness = Gateway::subscribe(&node, "gw-1", None).await;
    witness.until(|resources| has(resources, ResourceKind::ServiceExport)).await;

    let mut second = Gateway::subscribe(&node, "gw-0", have).await;
    (second.revision, second.resources) = (have, resources);
    let delta = second.next().await;
    assert_eq!(delta.from, have);
    assert_eq!(keys(&delta), ["ServiceExport/shop/api"]);
    assert_eq!(second.resources, witness.resources);

    // One that has everything is sent nothing until something changes.
    let mut third = Gateway::subscribe(&node, "gw-2", second.revision).await;
    (third.revision, third.resources) = (second.revision, second.resources.clone());
    site.remove("export.yaml");
    let delta = third.next().await;
    assert_eq!((delta.from, delta.removes.len()), (second.revision, 1));
    node.stop().await;
}

#[tokio::test]
async fn revisions_go_on_growing_over_a_restart() {
    let site = Site::new();
    site.write("service.yaml", SERVICE);
    let node = site.start().await;
    let bundle = node.bundle().clone();
    let mut gateway = Gateway::subscribe(&node, "gw-0", None).await;
    gateway.next().await;
    let before = gateway.revision.unwrap();
    node.stop().await;
    let ended = gateway.end().await;
    assert_eq!(ended.code(), tonic::Code::Unavailable);
    assert!(ended.message().contains("the federation node is stopping"), "{ended}");

    site.write("export.yaml", EXPORT);
    let node = site.start().await;
    assert_eq!(node.bundle(), bundle, "the CA is the same");
    let mut gateway = Gateway::subscribe(&node, "gw-0", Some(before)).await;
    let delta = gateway.next().await;
    assert!(delta.is_snapshot(), "the new epoch's log does not reach back to the old one");
    assert_eq!(delta.to, Revision { epoch: before.epoch + 1, index: 1 });
    assert!(delta.to > before);
    assert_eq!(gateway.resources.len(), 2);
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_lost_its_data_folder_is_not_taken_for_the_old_one() {
    let site = Site::new();
    site.write("service.yaml", SERVICE);
    let node = site.start().await;
    let mut gateway = Gateway::subscribe(&node, "gw-0", None).await;
    gateway.next().await;
    let before = gateway.revision.unwrap();
    node.stop().await;
    std::fs::remove_dir_all(site.path("data")).unwrap();
    // The index of the new node is the same, 1, and so would be an epoch that is counted from 1.
    let later = before.epoch + 1;
    until("the next second", || std::future::ready(unix_seconds()), |now| *now >= later).await;
    site.write("service.yaml", &SERVICE.replace("80", "81"));
    let node = site.start().await;
    let mut gateway = Gateway::subscribe(&node, "gw-0", Some(before)).await;
    let delta = gateway.next().await;
    assert!(delta.is_snapshot() && delta.to > before, "{} after {before}", delta.to);
    node.stop().await;
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// 300 Services of about 300 bytes each: more than an HTTP/2 window.
fn many_services(port: u16) -> String {
    let namespace = "n".repeat(63);
    let name = format!("{0}.{0}.{0}", "s".repeat(60));
    let service = |index: usize| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}.a{index}, namespace: \
             {namespace}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
        )
    };
    (0..300).map(service).collect()
}

#[tokio::test]
async fn a_slow_gateway_is_sent_the_newest_state_and_nothing_in_between() {
    const EDITS: u16 = 12;
    let site = Site::new();
    site.write("services.yaml", &many_services(1));
    let node = site.start().await;
    let mut slow = Gateway::subscribe(&node, "slow", None).await;
    slow.next().await;
    let mut quick = Gateway::subscribe(&node, "quick", None).await;
    quick.next().await;
    let at = |wanted: u16| {
        move |resources: &ResourceSet| {
            let port = |resource: &Resource| match resource {
                Resource::Service(service) => service.ports[0].port,
                other => panic!("{other:?}"),
            };
            resources.values().all(|resource| port(resource) == wanted)
        }
    };
    // The quick one shows that every edit became a revision while the slow one read nothing.
    for port in 2..2 + EDITS {
        site.write("services.yaml", &many_services(port));
        quick.until(at(port)).await;
    }
    let deltas = slow.until(at(1 + EDITS)).await;
    assert!(deltas < usize::from(EDITS) / 2, "{deltas} deltas were queued for {EDITS} edits");
    assert_eq!(slow.resources, quick.resources);
    node.stop().await;
}

#[tokio::test]
async fn a_bad_object_is_dropped_alone_and_named() {
    let site = Site::new();
    site.write("service.yaml", SERVICE);
    let node = site.start().await;
    let mut gateway = Gateway::subscribe(&node, "gw-0", None).await;
    gateway.next().await;
    site.write("export.yaml", &format!("{EXPORT}spec: {{unknown: true}}\n"));
    site.write("bad.yaml", &SERVICE.replace("api", "bad").replace("80", "0"));
    let mut client = operator(&node).await;
    let status = until(
        "a finding",
        || {
            let mut client = client.clone();
            async move { client.get_status(GetStatusRequest {}).await.unwrap().into_inner() }
        },
        |status| status.errors > 0,
    )
    .await;
    assert!(status.revision.is_some());
    let request = wire::operator::proto::ListDiagnosticsRequest {};
    let found = client.list_diagnostics(request).await.unwrap().into_inner().diagnostics;
    let bad = found.iter().filter_map(|found| found.diagnostic.as_ref());
    let objects: Vec<&str> = bad.map(|diagnostic| diagnostic.object.as_str()).collect();
    assert!(objects.iter().any(|object| object.contains("bad")), "{objects:?}");
    node.stop().await;
}

#[tokio::test]
async fn streams_that_break_the_rules_are_ended_with_words() {
    let site = Site::new();
    let node = site.start().await;
    let subscribe = |gateway: &str, cluster: &str| {
        let (gateway, cluster) = (gateway.to_string(), cluster.to_string());
        Message::Subscribe(proto::Subscribe { gateway, cluster, ..proto::Subscribe::default() })
    };
    let report = proto::StatusReport { gateway: "gw-9".into(), ..proto::StatusReport::default() };
    let foreign = proto::StatusReport {
        gateway: "gw-0".into(),
        spiffe_id: "spiffe://west.example/fedgate/gateway/gw-0".into(),
        ..proto::StatusReport::default()
    };
    let ok = || subscribe("gw-0", "east");
    let ack = Message::Ack(proto::Ack::default());
    let cases: [(Vec<Message>, &str); 7] = [
        (vec![ack.clone()], "the first message of a stream is Subscribe"),
        (vec![subscribe("A", "east")], "Subscribe.gateway = \"A\": name \"A\" is not valid"),
        (
            vec![subscribe("gw-0", "west")],
            "FED1001: Subscribe.cluster = \"west\": this node serves cluster \"east\"; mend \
             `cluster` or `federation.socket`",
        ),
        (vec![ok(), ok()], "Subscribe came twice"),
        (vec![ok(), ack], "Ack.revision = (absent): a revision is needed here"),
        (vec![ok(), Message::Report(report)], "StatusReport.gateway = \"gw-9\": this stream is"),
        (vec![ok(), Message::Report(foreign)], "this cluster's trust domain is east.example"),
    ];
    for (messages, wanted) in cases {
        let mut messages = messages.into_iter();
        let gateway = Gateway::open(&node, messages.next().unwrap()).await;
        for message in messages {
            gateway.send(message).await;
        }
        let ended = gateway.end().await;
        assert!(ended.message().contains(wanted), "{ended}\n  is without {wanted}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_newer_stream_of_the_same_process_takes_over() {
    let site = Site::new();
    site.write("service.yaml", SERVICE);
    let node = site.start().await;
    let mut old = Gateway::subscribe(&node, "gw-0", None).await;
    old.next().await;
    let mut new = Gateway::subscribe(&node, "gw-0", None).await;
    new.next().await;
    let revision = old.revision.unwrap();
    old.acknowledge(&wire::resource::Ack { revision, diagnostics: vec![] }).await;
    let ended = old.end().await;
    assert_eq!(ended.code(), tonic::Code::Aborted);
    site.write("export.yaml", EXPORT);
    new.until(|resources| has(resources, ResourceKind::ServiceExport)).await;
    node.stop().await;
}
