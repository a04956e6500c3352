//! Who may connect: the table, and the same over real handshakes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use identity::limits::CLOCK_SKEW;
use identity::{ExpectedPeer, FederationKey, IdentityCell, RevokedSvids};
use model::{RevokedSvid, SpiffeId};
use rustls_pki_types::CertificateDer;
use tunnel::{Admitted, Protocol, admit};
use wire::tunnel::{
    ALPN_JOIN, ALPN_STORE, ALPN_TUNNEL, Beacon, ConnectionClass, ErrorCode, StreamKind,
    VersionRange, encode_beacon,
};

use crate::site::{Cluster, Options, Site, ask, identity, pair, trust, wait_for};
use crate::stranger::Stranger;

/// One row: who comes, and what is in the refusal of each protocol; `None` is welcome.
struct Comer {
    who: &'static str,
    chain: Vec<CertificateDer<'static>>,
    tunnel: Option<&'static str>,
    store: Option<&'static str>,
    join: Option<&'static str>,
}

impl Comer {
    /// Refused by all protocols with the same words.
    fn nobody(who: &'static str, chain: Vec<CertificateDer<'static>>, text: &'static str) -> Self {
        Self { who, chain, tunnel: Some(text), store: Some(text), join: Some(text) }
    }
}

const DENIED: &str = "and its own cluster has revoked those";

/// Denied: what these names show now. Of one of them an SVID of a minute ago, so that it shows a good one.
fn denied(west: &Cluster, own: &Cluster, now: SystemTime) -> RevokedSvids {
    let unix_s = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let entry = |cluster: &Cluster, path: &str, not_before_unix_s| RevokedSvid {
        id: SpiffeId::parse(&format!("spiffe://{}{path}", cluster.domain)).unwrap(),
        not_before_unix_s,
    };
    let all = [
        entry(west, "/fedgate/gateway/gw-9", unix_s),
        entry(west, "/fedgate/federation/node-9", unix_s),
        entry(west, "/ns/shop/sa/denied", unix_s),
        entry(west, "/fedgate/gateway/gw-8", unix_s - 2 * CLOCK_SKEW.as_secs()),
        entry(own, "/fedgate/gateway/gw-9", unix_s),
    ];
    all.into_iter().collect()
}

fn comers(west: &Cluster, foreign: &Cluster, revoked: &Cluster, own: &Cluster) -> Vec<Comer> {
    let chain = |cluster: &Cluster, id: &str| {
        let id = SpiffeId::parse(&format!("spiffe://{}{id}", cluster.domain)).unwrap();
        cluster.svid(&id).chain().to_vec()
    };
    const GATEWAY: &str = "/fedgate/gateway/gw-0";
    const NODE: &str = "/fedgate/federation/node-0";
    // The table is judged two seconds later.
    let expired = |id: &SpiffeId| {
        west.svid_at(id, SystemTime::now(), Duration::from_secs(1)).chain().to_vec()
    };
    let own_ca = {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let ca = identity::Ca::load_or_create(folder.path(), &west.domain, now).unwrap();
        vec![CertificateDer::from(ca.bundle().x509_authorities[0].clone())]
    };
    let key = FederationKey::from_seed(&[7; 32]).self_signed().unwrap().der().clone();
    let beside = vec![key.clone(), own_ca[0].clone()];
    vec![
        Comer::nobody("nobody", vec![], "the peer sent no certificate"),
        Comer::nobody("a CA of its own", own_ca, "is not an X.509-SVID"),
        Comer {
            who: "self-signed",
            chain: vec![key],
            tunnel: Some("is not an X.509-SVID"),
            store: Some("is not an X.509-SVID"),
            join: None,
        },
        Comer::nobody("self-signed with company", beside, "is not an X.509-SVID"),
        Comer {
            who: "workload",
            chain: chain(west, "/ns/shop/sa/web"),
            tunnel: Some("spiffe://west.fed/ns/shop/sa/web is not a gateway"),
            store: Some("spiffe://west.fed/ns/shop/sa/web is not a federation"),
            join: Some("spiffe://west.fed/ns/shop/sa/web is not a federation"),
        },
        Comer {
            who: "gateway",
            chain: chain(west, GATEWAY),
            tunnel: None,
            store: Some("spiffe://west.fed/fedgate/gateway/gw-0 is not a federation"),
            join: Some("spiffe://west.fed/fedgate/gateway/gw-0 is not a federation"),
        },
        Comer {
            who: "federation node",
            chain: chain(west, NODE),
            tunnel: Some("spiffe://west.fed/fedgate/federation/node-0 is not a gateway"),
            store: None,
            join: None,
        },
        Comer::nobody("foreign gateway", chain(foreign, GATEWAY), "for which there is no bundle"),
        Comer::nobody("foreign node", chain(foreign, NODE), "for which there is no bundle"),
        Comer::nobody("expired gateway", expired(&west.gateway_id("gw-0")), "expired at"),
        Comer::nobody("expired node", expired(&west.node_id()), "expired at"),
        Comer::nobody("revoked gateway", chain(revoked, GATEWAY), "was revoked in this federation"),
        Comer::nobody("revoked node", chain(revoked, NODE), "was revoked in this federation"),
        Comer::nobody("denied gateway", chain(west, "/fedgate/gateway/gw-9"), DENIED),
        Comer::nobody("denied node", chain(west, "/fedgate/federation/node-9"), DENIED),
        Comer::nobody("denied workload", chain(west, "/ns/shop/sa/denied"), DENIED),
        Comer {
            who: "denied before, with the next SVID",
            chain: chain(west, "/fedgate/gateway/gw-8"),
            tunnel: None,
            store: Some("is not a federation"),
            join: Some("is not a federation"),
        },
        Comer::nobody("own cluster's denied gateway", chain(own, "/fedgate/gateway/gw-9"), DENIED),
        Comer {
            who: "own cluster's gateway",
            chain: chain(own, "/fedgate/gateway/gw-1"),
            tunnel: Some("is of this gateway's own cluster \"east\": a tunnel joins two clusters"),
            store: Some("is not a federation"),
            join: Some("is not a federation"),
        },
        Comer {
            who: "own cluster's node",
            chain: chain(own, NODE),
            tunnel: Some("is not a gateway"),
            store: Some("is of this gateway's own cluster \"east\""),
            join: None, // it looks whether its own addresses work
        },
    ]
}

#[test]
fn the_table_of_protocols_and_peers() {
    let (east, west, foreign, revoked) = (
        Cluster::new("east"),
        Cluster::new("west"),
        Cluster::new("foreign"),
        Cluster::new("revoked"),
    );
    let cell = identity(east.svid(&east.gateway_id("gw-0")), &[&east, &west, &revoked]);
    cell.replace_revoked([revoked.domain.clone()].into());
    cell.replace_revoked_svids(denied(&west, &east, SystemTime::now()));
    let identity = cell.load();
    let now = SystemTime::now() + Duration::from_secs(2);
    for comer in comers(&west, &foreign, &revoked, &east) {
        let rows = [
            (ALPN_TUNNEL, Protocol::Tunnel, comer.tunnel),
            (ALPN_STORE, Protocol::Store, comer.store),
            (ALPN_JOIN, Protocol::Join, comer.join),
        ];
        for (alpn, protocol, refused) in rows {
            let who = comer.who;
            let got = admit(alpn, &comer.chain, &identity, &ExpectedPeer::AnyKnown, now);
            match (got, refused) {
                (Ok(Admitted::Tunnel(peer)), None) if protocol == Protocol::Tunnel => {
                    assert_eq!(peer.cluster, west.name);
                }
                (Ok(Admitted::Store(peer)), None) if protocol == Protocol::Store => {
                    assert_eq!(peer.cluster, west.name);
                }
                (Ok(Admitted::Join(peer)), None) if protocol == Protocol::Join => {
                    assert_eq!(peer.is_none(), who == "self-signed", "{who}");
                }
                (Err(refusal), Some(text)) => {
                    assert!(refusal.to_string().contains(text), "{who}, {protocol}: {refusal}");
                    assert_eq!(refusal.error_code(), ErrorCode::AdmissionRefused);
                    assert_eq!(refusal.code(), model::code::PEER_IDENTITY_REFUSED);
                }
                (got, refused) => panic!("{who}, {protocol}: {got:?} but {refused:?}"),
            }
        }
    }
    let unknown = admit(b"h3", &[], &identity, &ExpectedPeer::AnyKnown, now).unwrap_err();
    let text =
        "the ALPN \"h3\" is not known: use fedgate-tunnel/1, fedgate-store/1 or fedgate-join/1";
    assert_eq!(unknown.to_string(), text);
    assert_eq!(unknown.code(), model::code::PEER_VERSION);
}

/// Where we dialled, the other end is a gateway: also for the store, whose streams it relays.
#[test]
fn a_dialled_store_connection_leads_to_a_gateway() {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let cell = identity(east.svid(&east.node_id()), &[&east, &west]);
    let (now, meant) = (SystemTime::now(), ExpectedPeer::Cluster(west.name.clone()));
    let gateway = west.svid(&west.gateway_id("gw-0")).chain().to_vec();
    let admitted = admit(ALPN_STORE, &gateway, &cell.load(), &meant, now).unwrap();
    assert!(matches!(admitted, Admitted::Store(peer) if peer.cluster == west.name));
    let node = west.svid(&west.node_id()).chain().to_vec();
    let refusal = admit(ALPN_STORE, &node, &cell.load(), &meant, now).unwrap_err();
    assert!(refusal.to_string().contains("node-0 is not a gateway"), "{refusal}");
}

#[test]
fn a_dialled_gateway_must_be_of_the_cluster_that_was_meant() {
    let (east, west, south) = (Cluster::new("east"), Cluster::new("west"), Cluster::new("south"));
    let cell = identity(east.svid(&east.gateway_id("gw-0")), &[&east, &west, &south]);
    let chain = west.svid(&west.gateway_id("gw-0")).chain().to_vec();
    let meant = ExpectedPeer::Cluster(south.name.clone());
    let error = admit(ALPN_TUNNEL, &chain, &cell.load(), &meant, SystemTime::now()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("is of cluster \"west\", but cluster \"south\" was dialled"), "{text}");
}

/// West alone, with east as its only peer, for strangers to knock at.
pub(crate) fn host() -> (Arc<Cluster>, Site) {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let site = Site::start(&west, &[&east, &west], Options::default());
    site.tunnel.set_peers(vec![east.peer(&[])]);
    (east, site)
}

pub(crate) fn cell_of(cluster: &Arc<Cluster>, path: &str, site: &Site) -> Arc<IdentityCell> {
    let id = SpiffeId::parse(&format!("spiffe://{}{path}", cluster.domain)).unwrap();
    identity(cluster.svid(&id), &[cluster, &site.cluster])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_protocols_are_refused_by_tls() {
    let (east, west) = host();
    let cell = cell_of(&east, "/fedgate/gateway/gw-0", &west);
    let error = Stranger::connect(cell, &west, b"h3", ConnectionClass::Fast).await.err().unwrap();
    // TLS alert 120, no_application_protocol (RFC 7301 §3.2).
    assert!(error.text.contains("error 120"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hellos_that_do_not_fit_are_refused_with_their_code() {
    let (east, west) = host();
    type Spoil = fn(&mut wire::tunnel::Hello);
    let table: [(Spoil, ErrorCode, &str); 3] = [
        (
            |hello| hello.versions = VersionRange { min: 7, max: 9 },
            ErrorCode::UnsupportedVersion,
            "HELLO.version_min..version_max = 7..9: this side speaks 1..1; upgrade the older",
        ),
        (
            |hello| hello.gateway = model::GatewayId::from_bytes([9; 16]),
            ErrorCode::BadIdentity,
            "HELLO.gateway_id = 09090909090909090909090909090909: the peer's certificate gives",
        ),
        (
            |hello| hello.class = ConnectionClass::Bulk,
            ErrorCode::MalformedFrame,
            "HELLO.connection_class = bulk: the dialler said fast: say the same",
        ),
    ];
    for (spoil, code, text) in table {
        let cell = cell_of(&east, "/fedgate/gateway/gw-0", &west);
        let stranger = Stranger::tunnel(cell, &west).await.unwrap();
        let mut hello = stranger.hello();
        spoil(&mut hello);
        // The other side may say its own HELLO before it has read ours.
        let error = match stranger.greet(&hello).await {
            Ok(_) => stranger.hung_up().await,
            Err(error) => error,
        };
        assert_eq!(error.code, Some(code), "{error:?}");
        assert!(error.text.contains(text), "{error:?} has not {text:?}");
    }
    // The guard is not simply always shut.
    let stranger =
        Stranger::tunnel(cell_of(&east, "/fedgate/gateway/gw-0", &west), &west).await.unwrap();
    stranger.greet(&stranger.hello()).await.unwrap();
    wait_for("the link", || west.tunnel.path(&east.name).is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_stream_that_breaks_the_rules_closes_the_connection() {
    let (east, west) = host();
    let beacon = |draining| {
        let mut out = BytesMut::new();
        let beacon = Beacon {
            incarnation: 1,
            sequence: 1,
            heard_age_ms: 0,
            in_flight: 0,
            load_permille: 0,
            draining,
            heads: Vec::new(),
            revocations: Vec::new(),
            siblings: Vec::new(),
        };
        encode_beacon(&beacon, &mut out).unwrap();
        out.freeze()
    };
    for (bytes, code, text) in [
        (beacon(false), ErrorCode::FrameOutOfOrder, "frame = BEACON: HELLO was due"),
        (Bytes::from_static(&[0x23, 0]), ErrorCode::UnknownOddFrame, "frame type = 0x23"),
        (Bytes::from_static(&[1, 0x80, 1, 0, 0]), ErrorCode::FrameTooLarge, "HELLO.length = 65536"),
        (Bytes::from_static(&[1, 1, 0xff]), ErrorCode::MalformedFrame, "HELLO"),
    ] {
        let cell = cell_of(&east, "/fedgate/gateway/gw-0", &west);
        let stranger = Stranger::tunnel(cell, &west).await.unwrap();
        let error = match stranger.control(bytes.clone()).await {
            Ok(_) => stranger.hung_up().await,
            Err(error) => error,
        };
        assert_eq!(error.code, Some(code), "{bytes:?}: {error:?}");
        assert!(error.text.contains(text), "{error:?} has not {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_of_every_kind_are_turned_away() {
    let (east, west) = host();
    let foreign = Cluster::new("foreign");
    // A workload's certificate is good, so TLS lets it in: only `admit` stands in its way. With
    // `admit`'s check of the kind taken out, this row was seen to reach HELLO and open streams.
    for (cluster, path, code, text) in [
        (&east, "/ns/shop/sa/web", Some(ErrorCode::AdmissionRefused), "is not a gateway"),
        (&east, "/fedgate/federation/n0", Some(ErrorCode::AdmissionRefused), "is not a gateway"),
        (&foreign, "/fedgate/gateway/gw-0", None, "error 48"), // alert unknown_ca
        (&west.cluster, "/fedgate/gateway/gw-9", Some(ErrorCode::AdmissionRefused), "own cluster"),
    ] {
        let cell = if cluster.name == west.cluster.name {
            identity(cluster.svid(&cluster.gateway_id("gw-9")), &[cluster])
        } else {
            cell_of(cluster, path, &west)
        };
        // TLS 1.3: the client is done before the server has seen its certificate.
        let error = match Stranger::tunnel(cell, &west).await {
            Ok(stranger) => match stranger.greet(&stranger.hello()).await {
                Ok(_) => panic!("{path} of {:?} came in", cluster.name),
                Err(error) => error,
            },
            Err(error) => error,
        };
        assert_eq!(error.code, code, "{path}: {error:?}");
        assert!(error.text.contains(text), "{path}: {error:?}");
    }
    assert_eq!(west.tunnel.counters().peers_refused, 4);
    assert!(west.tunnel.links().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_the_wrong_trust_domain_shows_in_links_with_its_code() {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let south = Cluster::new("south");
    let all = [&east, &west, &south];
    let east = Site::start(&east, &all, Options::default());
    let south = Site::start(&south, &all, Options::default());
    // East is told that west lives where south does.
    east.tunnel.set_peers(vec![west.peer(&[south.addr()])]);
    let error = || east.tunnel.links().into_iter().find_map(|row| row.last_error);
    wait_for("the refusal", || error().is_some()).await;
    let error = error().unwrap();
    assert_eq!(error.code, model::code::PEER_IDENTITY_REFUSED);
    let text = "is of cluster \"south\", but cluster \"west\" was dialled";
    assert!(error.text.contains(text), "{error:?}");
    assert_eq!(east.tunnel.path(&west.name), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_not_trusted_over_there_is_told_so() {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    // East knows west, but west does not know east.
    let west_site = Site::start(&west, &[&west], Options::default());
    let east_site = Site::start(&east, &[&east, &west], Options::default());
    east_site.tunnel.set_peers(vec![west_site.peer()]);
    let error = || east_site.tunnel.links().into_iter().find_map(|row| row.last_error);
    wait_for("the refusal", || error().is_some()).await;
    let error = error().unwrap();
    assert_eq!(error.code, model::code::PEER_IDENTITY_REFUSED, "{error:?}");
    let text = "the peer refused this gateway's certificate (TLS alert 48)";
    assert!(error.text.contains(text), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_resets_no_stream_and_distrust_ends_links() {
    let (east, west) = pair(Options::default).await;
    let mut exchange = east.open(&west, "echo", StreamKind::Tcp).await;
    let mut say = async |text: &'static str| {
        exchange.send.data(Bytes::from_static(text.as_bytes())).await?;
        exchange.recv.next().await
    };
    say("before").await.unwrap();
    for site in [&east, &west] {
        site.cell.replace_svid(site.cluster.svid(&site.cluster.gateway_id("gw-0")));
    }
    // Longer than the watch of trust needs to see it.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    say("after").await.unwrap();
    ask(&west, &east).await.unwrap();

    let (bundles, owners) = trust(&[&west.cluster]);
    west.cell.replace_trust(bundles, owners);
    wait_for("the links' end", || west.tunnel.path(&east.cluster.name).is_none()).await;
    let error = loop {
        if let Err(error) = say("too late").await {
            break error;
        }
    };
    assert_eq!(error.code, ErrorCode::AdmissionRefused, "{error}");
    assert!(error.to_string().contains("not trusted any more"), "{error}");
}
