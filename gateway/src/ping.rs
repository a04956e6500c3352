//! Pings that the federation node asks for: the tunnel measures, the answers go back on the stream.

use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tunnel::Tunnel;
use wire::resource::limits::PINGS_MAX;
use wire::resource::{PathMtu, PingAnswer, PingRequest, PingedLink, RoundTrips};

use crate::report;

/// The pings of one resource stream; they end with it.
#[derive(Debug, Default)]
pub(crate) struct Pings(JoinSet<PingAnswer>);

impl Pings {
    /// Begins one. The answer comes from [`Self::next`], or at once if it is refused.
    pub(crate) fn begin(
        &mut self,
        tunnel: Option<&Tunnel>,
        request: PingRequest,
    ) -> Option<PingAnswer> {
        let PingRequest { id, cluster, probes } = request;
        let refuse = |text: String| Some(PingAnswer { id, links: Err(text) });
        let Some(tunnel) = tunnel.cloned() else {
            return refuse("its tunnel's port is not bound yet".into());
        };
        if self.0.len() >= PINGS_MAX {
            return refuse(format!("{PINGS_MAX} pings are under way here already"));
        }
        self.0.spawn(async move {
            let rows = tunnel.ping(&cluster, probes).await;
            let now = SystemTime::now();
            PingAnswer { id, links: Ok(rows.iter().map(|row| pinged(row, now)).collect()) }
        });
        None
    }

    /// The next answer; it may be dropped and called again.
    pub(crate) async fn next(&mut self) -> PingAnswer {
        loop {
            match self.0.join_next().await {
                Some(Ok(answer)) => return answer,
                Some(Err(error)) => tracing::error!(%error, "a ping ended without an answer"),
                None => return std::future::pending().await,
            }
        }
    }
}

fn pinged(row: &tunnel::PingedLink, now: SystemTime) -> PingedLink {
    let times = &row.round_trips;
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let answered = u32::try_from(times.len()).unwrap_or(u32::MAX);
    let sum: Duration = times.iter().sum();
    let round_trips = times.iter().min().zip(times.iter().max()).map(|(min, max)| RoundTrips {
        min_us: us(*min),
        avg_us: us(sum / answered),
        max_us: us(*max),
    });
    PingedLink {
        link: report::link(&row.link, now),
        sent: row.sent,
        answered,
        round_trips,
        packets_sent: row.packets_sent,
        packets_lost: row.packets_lost,
        mtu: row.mtu.map(|mtu| PathMtu {
            current_bytes: mtu.current_bytes.into(),
            max_bytes: mtu.max_bytes.into(),
            probes_sent: mtu.probes_sent,
            probes_lost: mtu.probes_lost,
            black_holes: mtu.black_holes,
        }),
    }
}
