//! `testdata/own/*.in.yaml`: what is known, then objects as the API server has them; `*.out.yaml`:
//! what is written because of it. `UPDATE=1` rewrites.

use std::fs;

use model::{ResourceSet, Revision, Transport};
use serde::Deserialize;
use wire::resource::{Link, LinkClass, LinkState};

use super::federation::Inside;
use super::world::{Gateway, Member};
use super::*;
use crate::kubernetes::apply::{Plan, Step, plan};
use crate::kubernetes::golden;

static POLICY: Kind = kind("AccessPolicy", "accesspolicies");
static GRANT: Kind = kind("NamespaceGrant", "namespacegrants");
static PEER: Kind = kind("ClusterPeer", "clusterpeers");
static FEDERATION: Kind = kind("Federation", "federations");

const fn kind(kind: &'static str, plural: &'static str) -> Kind {
    Kind { group: "fedgate.dev", version: "v1alpha1", kind, plural }
}

fn served(kind: WatchedKind) -> Option<&'static Kind> {
    match kind {
        WatchedKind::AccessPolicy => Some(&POLICY),
        WatchedKind::NamespaceGrant => Some(&GRANT),
        WatchedKind::ClusterPeer => Some(&PEER),
        WatchedKind::Federation => Some(&FEDERATION),
        _ => None,
    }
}

/// The first document.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Known {
    gateways: Vec<KnownGateway>,
    /// `admin` or another role; absent: in no federation.
    member: Option<String>,
    /// ClusterPeers as the federation says them.
    members: Vec<Value>,
    /// Names of NamespaceGrants that the federation's store has.
    published: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownGateway {
    name: String,
    acknowledged: Option<u64>,
    /// Clusters with RTT in µs, or without a connection.
    links: Option<BTreeMap<String, Option<u64>>>,
}

fn link(cluster: &str, rtt_us: Option<u64>) -> Link {
    Link {
        cluster: ClusterName::parse(cluster).unwrap(),
        gateway_id: None,
        address: "192.0.2.7:4500".into(),
        transport: Transport::Quic,
        class: LinkClass::Fast,
        worker: 0,
        state: if rtt_us.is_some() { LinkState::Live } else { LinkState::Down },
        rtt_us,
        packets_sent: 0,
        packets_lost: 0,
        bytes_sent: 0,
        bytes_received: 0,
        since_age_ms: 0,
        last_error: None,
        retiring: false,
    }
}

impl KnownGateway {
    fn gateway(&self) -> Gateway {
        let links = self.links.as_ref();
        Gateway {
            name: self.name.clone(),
            connected: true,
            acknowledged: self.acknowledged.map(|index| Revision { epoch: 1, index }),
            links: links.map(|links| links.iter().map(|(c, rtt)| link(c, *rtt)).collect()),
        }
    }
}

fn is_ours(object: &Value) -> bool {
    object.pointer("/metadata/labels/app.kubernetes.io~1managed-by").is_some()
}

fn read(input: &str) -> (World, Observed) {
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(input).unwrap();
    let known: Known = serde_json::from_value(documents.remove(0)).unwrap();
    let (mut resources, mut own) = (ResourceSet::default(), Observed::default());
    let mut world = World {
        gateways: known.gateways.iter().map(KnownGateway::gateway).collect(),
        ..World::default()
    };
    let (mut policies, mut grants, mut peers) = (vec![], vec![], vec![]);
    for object in documents {
        let name = text_of(&object, "/metadata/name");
        if is_ours(&object) {
            let target = Write::whole(&PEER, None, &name, json!({})).target;
            own.objects.insert(target, object.clone());
            world.own_peers.insert(name, Arc::new(object));
            continue;
        }
        if object["kind"] == "Federation" {
            world.federations.push(Arc::new(object));
            continue;
        }
        let read = Object::read(object);
        // What an object said before it went wrong.
        if read.object.pointer("/metadata/annotations/held").is_some() {
            let mut before = (*read.object).clone();
            before["spec"] =
                serde_json::from_str(text(&before, "/metadata/annotations/held").unwrap()).unwrap();
            resources.upsert(Object::read(before).resource.unwrap());
        }
        read.resource.iter().for_each(|resource| resources.upsert(resource.clone()));
        match read.object["kind"].as_str().unwrap() {
            "AccessPolicy" => policies.push(read),
            "NamespaceGrant" => grants.push(read),
            "ClusterPeer" => peers.push(read),
            _ => {}
        }
    }
    let members = known.members.into_iter().map(|peer| Object::read(peer).resource.unwrap());
    world.shared = members.collect();
    world.member = known.member.as_ref().map(|role| Member {
        is_admin: role == "admin",
        grants: grants
            .iter()
            .filter(|grant| known.published.iter().any(|name| name == grant.name()))
            .filter_map(|grant| match &grant.resource {
                Some(model::Resource::NamespaceGrant(grant)) => Some(grant.clone()),
                _ => None,
            })
            .collect(),
    });
    world.fared.inside = known.member.map(|_| Inside {
        id: "0a1b".into(),
        clusters: world.shared.len() + 1,
        voters: vec!["east".into()],
        leader: Some("east".into()),
        is_heard: true,
        problem: None,
        is_member: true,
    });
    let own_name = ClusterName::parse("east").unwrap();
    let (merged, _) = crate::fleet::merge(&resources, world.shared.clone());
    let revision = Revision { epoch: 1, index: 5 };
    let (snapshot, compile) = model::compile(&own_name, revision, &merged);
    for found in compile {
        world.compile.entry(found.object.clone()).or_default().push(found);
    }
    (world.exports, world.revision) = (snapshot.exports, snapshot.revision);
    world.catalog = Arc::new(discovery::Catalog { resources, diagnostics: vec![], sequence: 1 });
    (world.policies, world.grants) = (Arc::new(policies), Arc::new(grants));
    world.peers = Arc::new(peers);
    (world, own)
}

fn text_of(object: &Value, path: &str) -> String {
    text(object, path).unwrap_or_default().to_string()
}

fn now() -> Timestamp {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

fn written(text: &str) -> String {
    let (world, own) = read(text);
    let mut memory = Memory::default();
    let desired = desired(&world, served, &own, &mut memory, now());
    let Plan { steps, .. } = plan("own-kinds", desired, &own, &BTreeMap::new());
    let mut out = String::new();
    for step in &steps {
        match step {
            Step::Apply { document, .. } => {
                out += &format!("---\n{}", serde_saphyr::to_string(document).unwrap());
            }
            Step::Delete { target, .. } => out += &format!("---\n# deleted: {target}\n"),
        }
    }
    out
}

#[test]
fn what_is_written_is_as_recorded() {
    golden::check("own", |_, text| written(text));
}

/// Times of conditions and round-trip times stay, so that there is nothing to write.
#[test]
fn what_did_not_change_is_not_written_again() {
    let folder = golden::folder("own");
    let input = fs::read_to_string(folder.join("peers.in.yaml")).unwrap();
    let (mut world, own) = read(&input);
    let mut memory = Memory::default();
    let first = desired(&world, served, &own, &mut memory, now());
    for link in world.gateways.iter_mut().flat_map(|gateway| gateway.links.iter_mut().flatten()) {
        link.rtt_us = link.rtt_us.map(|rtt| rtt * 5 / 4);
    }
    let later = now() + jiff::SignedDuration::from_hours(1);
    let second = desired(&world, served, &own, &mut memory, later);
    let fields = |writes: &[Write]| writes.iter().map(|w| w.fields.clone()).collect::<Vec<_>>();
    assert_eq!(fields(&first), fields(&second));
    for link in world.gateways.iter_mut().flat_map(|gateway| gateway.links.iter_mut().flatten()) {
        link.rtt_us = link.rtt_us.map(|rtt| rtt * 4);
    }
    assert_ne!(fields(&first), fields(&desired(&world, served, &own, &mut memory, later)));
}

/// A gateway that comes with an older revision does not take back what was obeyed.
#[test]
fn a_policy_that_was_obeyed_stays_so_until_it_changes() {
    let folder = golden::folder("own");
    let (mut world, own) = read(&fs::read_to_string(folder.join("policies.in.yaml")).unwrap());
    let mut memory = Memory::default();
    let programmed = |writes: &[Write]| {
        let of = writes.iter().find(|write| write.target.name == "good").unwrap();
        of.fields["status"]["ancestors"][0]["conditions"][1]["status"].clone()
    };
    assert_eq!(programmed(&desired(&world, served, &own, &mut memory, now())), "True");
    world.gateways[0].acknowledged = None;
    assert_eq!(programmed(&desired(&world, served, &own, &mut memory, now())), "True");
    let mut policies = (*world.policies).clone();
    let good = policies.iter_mut().find(|policy| policy.name() == "good").unwrap();
    Arc::make_mut(&mut good.object)["metadata"]["generation"] = json!(9);
    world.policies = Arc::new(policies);
    assert_eq!(programmed(&desired(&world, served, &own, &mut memory, now())), "False");
}
