//! Measures what docs/reference/performance.md says of dead peers: how long after the path is cut an exchange
//! that talks is told so, at both of its ends. `death [rounds] [pairs at once]`.

#![expect(clippy::unwrap_used, reason = "a measurement fails by panicking")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

#[expect(dead_code, reason = "the tests' gateways, of which not everything is needed here")]
#[path = "../tests/it/site.rs"]
mod site;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tunnel::{Exchange, Part};
use wan::Impairment;
use wire::tunnel::{ErrorCode, StreamKind};

use site::{Options, Site, relayed};

const ROUNDS: usize = 60;
/// Of pairs that are cut at the same time: more, and a small machine measures itself.
const PAIRS: usize = 4;
/// One way.
const DELAY: Duration = Duration::from_millis(20);
const LOSSES: [f64; 3] = [0.0, 0.01, 0.05];
/// How long both sides talk before the cut; each round some longer.
const TALK: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(10);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().unwrap());
    let (rounds, pairs) = (arguments.next().unwrap_or(ROUNDS), arguments.next().unwrap_or(PAIRS));
    println!(
        "| loss each way | deaths | told by both ends: p50 ms | p90 | p99 | most | false alarms |"
    );
    println!("|---|---|---|---|---|---|---|");
    for loss in LOSSES {
        let (mut told, mut false_alarms) = (Vec::new(), 0);
        while told.len() < 2 * rounds {
            let round = |number| die(loss, (told.len() + number) as u32);
            for both in join_all((0..pairs).map(round)).await {
                match both {
                    Some(both) => told.extend(both),
                    None => false_alarms += 1,
                }
            }
        }
        told.sort();
        let ms = |share: usize| told[(told.len() * share).div_ceil(100) - 1].as_millis();
        println!(
            "| {} % | {} | {} | {} | {} | {} | {false_alarms} |",
            loss * 100.0,
            told.len() / 2,
            ms(50),
            ms(90),
            ms(99),
            ms(100),
        );
    }
}

/// One pair and its end, as each side noticed it; `None` if one was given up before the cut.
async fn die(loss: f64, round: u32) -> Option<[Duration; 2]> {
    let path = Impairment::delayed(DELAY).with_loss(loss);
    let (east, west, relay) = relayed(path, Options::default).await;
    let talks = [(&east, &west), (&west, &east)].map(|(from, to)| open(from, to));
    let talks = join_all(talks).await;
    let talks: Vec<_> = talks.into_iter().map(|exchange| tokio::spawn(talk(exchange))).collect();
    // At another moment between two beacons and two checks each time.
    tokio::time::sleep(TALK + Duration::from_millis(u64::from(round * 37 % 1000))).await;
    let was_early = talks.iter().any(tokio::task::JoinHandle::is_finished);
    relay.cut("west").unwrap();
    let cut = Instant::now();
    let ends = join_all(talks).await;
    let [east_told, west_told] = [0, 1].map(|side| *ends[side].as_ref().unwrap());
    (!was_early).then(|| [east_told, west_told].map(|told| told.duration_since(cut)))
}

async fn open(from: &Site, to: &Site) -> Exchange {
    from.open(to, "echo", StreamKind::Tcp).await
}

/// Says something all the time until the link is given up, and when that was.
async fn talk(mut exchange: Exchange) -> Instant {
    let mut ticks = tokio::time::interval(PAUSE);
    loop {
        ticks.tick().await;
        let sent = exchange.send.data(Bytes::from_static(b"x")).await;
        let error = match sent {
            Ok(()) => match exchange.recv.next().await {
                Ok(Part::Data(_)) => continue,
                Ok(part) => panic!("{part:?}"),
                Err(error) => error,
            },
            Err(error) => error,
        };
        assert_eq!(error.code, ErrorCode::PeerSilent, "{error}");
        return Instant::now();
    }
}
