//! Certificates and roots that change under load: nobody outside notices.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::StatusCode;
use testkit::{client, wait};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use wire::operator::proto::{RotateTrustRequest, RotationStage, TrustStatus};

use super::{LIMIT, World, east_calls_west, host};

/// Clients that send GETs one after the other.
const CLIENTS: usize = 4;

/// Clients of east's that count everything which is not the right answer.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    failures: Arc<Mutex<BTreeMap<String, u64>>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(world: &World) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            answers: Arc::default(),
            failures: Arc::default(),
            clients: vec![],
        };
        for _ in 0..CLIENTS {
            let (address, stop) = (world.http("east"), load.stop.clone());
            let (answers, failures) = (load.answers.clone(), load.failures.clone());
            load.clients.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let outcome = match client::get(address, &host("api"), "/").await {
                        Ok(answer) if answer.status == StatusCode::OK => {
                            answers.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        Ok(answer) => format!("{} {}", answer.status, answer.text()),
                        Err(error) => format!("{error:#}"),
                    };
                    *failures.lock().unwrap().entry(outcome).or_default() += 1;
                }
            }));
        }
        load
    }

    /// Returns when many more requests were answered than there are now.
    async fn goes_on(&self, more: u64) {
        let wanted = self.answers.load(Ordering::Relaxed) + more;
        let many = async || (self.answers.load(Ordering::Relaxed) >= wanted).then_some(());
        wait::until_async("answers", LIMIT, many).await;
    }

    /// How many were answered; none failed.
    async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{failures:#?}");
        self.answers.load(Ordering::Relaxed)
    }
}

/// From now on the cluster's SVIDs live for 10 s, and all that it has are such.
async fn let_svids_be_short(world: &mut World, name: &str) {
    let cluster = world.fleet.cluster_mut(name);
    cluster.stop_gateway().await;
    cluster.stop_federation().await;
    let config = cluster.folder.join("federation.yaml");
    let mut config = std::fs::OpenOptions::new().append(true).open(config).unwrap();
    config.write_all(b"svidLifetimeSeconds: 10\n").unwrap();
    std::fs::remove_dir_all(cluster.folder.join("gateway/svid")).unwrap();
    cluster.start_federation().await.unwrap();
    cluster.start_gateway().await.unwrap();
}

/// What `cluster`'s node says of its own trust domain.
async fn own_trust(world: &World, cluster: &str) -> TrustStatus {
    let operator = world.operator(cluster).await;
    let trust = operator.list_trust(Default::default()).await.unwrap().trust;
    trust.into_iter().find(|row| row.own).unwrap()
}

async fn stage(world: &World, cluster: &str, stage: RotationStage) -> Result<Vec<String>, String> {
    let request = RotateTrustRequest { stage: stage.into(), force: false };
    let rotated = world.operator(cluster).await.rotate_trust(request).await;
    let rotated = rotated.map_err(|error| error.to_string())?;
    Ok(rotated.roots.into_iter().map(|root| root.state).collect())
}

/// East reads west's bundle as it is now, as an operator carries it there by hand.
async fn introduce_anew(world: &World) {
    let bundle = world.cluster("west").federation().unwrap().bundle();
    let peer = super::trust::peer(world, "east", "west", &[bundle]);
    world.write("east", "peer-west", &peer);
    world.settle("east").await;
}

/// The root of west's CA is rotated while east calls. East gets west's bundle by hand, so it is a
/// peer that reads late, however late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_rotated_under_load_and_waits_for_a_peer_that_reads_late() {
    let (mut world, _origin) = east_calls_west().await;
    let_svids_be_short(&mut world, "west").await;
    world.until_answer("east", "api", "api@west").await;
    let load = Load::start(&world);
    load.goes_on(50).await;
    let first = own_trust(&world, "west").await;

    assert_eq!(
        stage(&world, "west", RotationStage::Prepare).await.unwrap(),
        ["active", "prepared"]
    );
    let early = stage(&world, "west", RotationStage::Activate).await.unwrap_err();
    assert!(early.contains("FED3011") && early.contains("east ("), "{early}");
    assert!(early.contains("TLS alert 48"), "east's gateway does not know the next root: {early}");
    load.goes_on(50).await;

    introduce_anew(&world).await;
    assert_eq!(stage(&world, "west", RotationStage::Activate).await.unwrap(), ["active", "old"]);
    load.goes_on(50).await;
    let early = stage(&world, "west", RotationStage::Revoke).await.unwrap_err();
    assert!(early.contains("FED3011") && early.contains("are valid until"), "{early}");
    let revoked = async || stage(&world, "west", RotationStage::Revoke).await.ok();
    let roots = wait::until_async("the end of the old root's SVIDs", LIMIT, revoked).await;
    assert_eq!(roots, ["active"]);
    load.goes_on(50).await;
    introduce_anew(&world).await;
    load.goes_on(200).await;

    let last = own_trust(&world, "west").await;
    assert_ne!(last.authorities[0].fingerprint, first.authorities[0].fingerprint);
    let answered = load.finish().await;
    assert!(answered > 300, "{answered}");
    world.stop().await;
}

/// A line there and a line back.
async fn say(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"hello\n").await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    Ok(line.trim_end().to_string())
}

/// SVIDs of 10 s are renewed every 5 s on both sides, under a stream that takes longer than three of
/// them live.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_outlive_the_svids_that_began_them() {
    let (mut world, _origin) = east_calls_west().await;
    for name in ["east", "west"] {
        let_svids_be_short(&mut world, name).await;
    }
    world.until_answer("east", "api", "api@west").await;
    let _tcp = world.run_tcp("west", "db").await;
    world.export("west", "db", "[{cluster: east}]");
    world.import("east", "db", "tcp", &["west"]);
    world.settle("west").await;
    world.settle("east").await;
    let ends = async |name: &str| {
        let gateways = world.operator(name).await.status().await.unwrap().gateways;
        gateways[0].report.as_ref().unwrap().svid_not_after_unix_s
    };
    let mut stream = wait::until_async("an answer over TCP", LIMIT, async || {
        let mut stream = BufReader::new(TcpStream::connect(world.tcp("east")).await.ok()?);
        say(&mut stream).await.ok().filter(|line| line == "db@west").map(|_| stream)
    })
    .await;
    let load = Load::start(&world);
    for _ in 0..4 {
        for name in ["east", "west"] {
            let before = ends(name).await;
            let renewed = async || (ends(name).await > before).then_some(());
            wait::until_async("a new SVID", LIMIT, renewed).await;
        }
        assert_eq!(say(&mut stream).await.unwrap(), "db@west");
    }
    assert!(load.finish().await > 50);
    assert_eq!(say(&mut stream).await.unwrap(), "db@west");
    drop(stream);
    world.stop().await;
}
