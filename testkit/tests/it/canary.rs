//! What an eavesdropper between clusters sees: a string that applications exchange, in bodies and in
//! headers, is nowhere in the recorded packets.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use fedctl::demo::app;
use fedctl::demo::manifests::{self, BackendRefKind, HTTP_PORT, clusterset_host, tcp_port};
use fedctl::demo::probe;
use testkit::{Fleet, FleetSpec, Introduction, wait};

const CANARY: &str = "canary-5d1f0c6b2a9e4f73";
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_never_appears_between_clusters() {
    let folder = tempfile::Builder::new().prefix("fg-canary-").tempdir().unwrap();
    let spec = FleetSpec {
        folder: folder.path().into(),
        clusters: vec!["east".into(), "west".into()],
        delays: vec![],
        introduction: Introduction::Manifests,
        workers: 1,
    };
    let fleet = Fleet::start(spec).await.unwrap();
    let recording = folder.path().join("recording.pcap");
    fleet.relay().record(&recording).unwrap();

    // The application answers with the canary in its label; its clients send it in a header and a line.
    let west = fleet.cluster("west");
    let echo = app::start(CANARY.into(), west.address, None).await.unwrap();
    west.write_manifest("service", &manifests::service("api", echo.http, echo.tcp)).unwrap();
    west.write_manifest("export", &manifests::export("api", &["east"])).unwrap();
    let east = fleet.cluster("east");
    east.write_manifest("gateway", &manifests::gateway(&["api"])).unwrap();
    east.write_manifest("import", &manifests::import("api", &["west"])).unwrap();
    let host = clusterset_host("api");
    let routes = manifests::routes("api", BackendRefKind::ServiceImport, &host);
    east.write_manifest("routes", &routes).unwrap();
    let http = SocketAddr::new(east.address, HTTP_PORT);
    let tcp = SocketAddr::new(east.address, tcp_port("api"));
    wait::until_async("an answer over HTTP", LIMIT, async || {
        probe::get_once(http, &host).await.ok().filter(|answer| answer == CANARY)
    })
    .await;
    wait::until_async("an answer over TCP", LIMIT, async || {
        app::call_tcp(tcp, CANARY).await.ok().filter(|answer| answer == CANARY)
    })
    .await;

    let packets = fleet.relay().flush_recording().unwrap().expect("a recording is under way");
    assert!(packets.packets > 20, "the recording is nearly empty: {packets:?}");
    assert_eq!(packets.skipped_packets, 0, "the recording is not complete: {packets:?}");
    assert!(!wan::capture::contains(&recording, CANARY.as_bytes()).unwrap());

    // The same recording does show what is sent in the clear, so the absence above means something.
    let link = fleet.relay().addr("east", "west").unwrap();
    let eavesdropped = UdpSocket::bind((fleet.cluster("east").address, 0)).unwrap();
    eavesdropped.send_to(CANARY.as_bytes(), link).unwrap();
    wait::until("the plain packet to be recorded", LIMIT, || {
        fleet.relay().flush_recording().unwrap();
        wan::capture::contains(&recording, CANARY.as_bytes()).unwrap().then_some(())
    });
    fleet.stop().await;
}
