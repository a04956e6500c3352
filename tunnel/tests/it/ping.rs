//! Pings: over both transports, from both sides, and over a path that takes nothing any more.

use std::time::Instant;

use model::Transport;
use tunnel::{LinkState, PingedLink};

use crate::fallback::Ways;
use crate::site::{LONG, Options, Site, pair};

const PROBES: u32 = 3;

async fn pinged(from: &Site, to: &Site) -> Vec<PingedLink> {
    let before = to.tunnel.counters().exchanges_accepted;
    let rows = from.tunnel.ping(&to.cluster.name, PROBES).await;
    assert_eq!(to.tunnel.counters().exchanges_accepted, before, "a probe is no exchange");
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_on_every_link_from_both_sides() {
    let (east, west) = pair(Options::default).await;
    for (from, to) in [(&east, &west), (&west, &east)] {
        let rows = pinged(from, to).await;
        let live = rows.iter().filter(|row| row.link.state == LinkState::Live);
        assert!(live.clone().count() > 0, "{rows:#?}");
        for row in live {
            let answered = row.round_trips.len();
            assert_eq!((row.sent, answered), (PROBES, PROBES as usize), "{row:#?}");
            assert_eq!(row.link.transport, Transport::Quic);
            assert!(row.packets_sent > 0 && row.mtu.unwrap().current_bytes >= 1200, "{row:#?}");
        }
        assert_eq!(from.tunnel.in_flight() + to.tunnel.in_flight(), 0, "nothing stays open");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_over_tcp_from_both_sides() {
    let ways = Ways::tcp_only().await;
    for (from, to) in [(&ways.east, &ways.west), (&ways.west, &ways.east)] {
        let rows = pinged(from, to).await;
        let over_tcp = |row: &&PingedLink| row.link.transport == Transport::Tcp && row.sent > 0;
        let live: Vec<_> = rows.iter().filter(over_tcp).collect();
        assert!(!live.is_empty(), "{rows:#?}");
        for row in live {
            let answered = row.round_trips.len();
            assert_eq!((row.sent, answered), (PROBES, PROBES as usize), "{row:#?}");
            assert!(row.mtu.is_none() && row.packets_sent == 0, "{row:#?}");
            assert_eq!(row.link.last_error.as_ref().unwrap().code.to_string(), "FED2009");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_takes_nothing_any_more_is_found_out_by_the_ping() {
    let ways = Ways::over_udp().await;
    ways.cut();
    let begun = Instant::now();
    let rows = pinged(&ways.east, &ways.west).await;
    assert!(begun.elapsed() < LONG);
    let asked: Vec<_> = rows.iter().filter(|row| row.sent > 0).collect();
    assert!(!asked.is_empty() && asked.iter().all(|row| row.round_trips.is_empty()), "{rows:#?}");
    let dead = asked.iter().filter(|row| row.link.state == LinkState::Down);
    let codes: Vec<_> = dead.map(|row| row.link.last_error.as_ref().unwrap().code).collect();
    assert!(codes.iter().any(|code| code.to_string() == "FED2002"), "{rows:#?}");
}
