//! The life of a link: beacons, the judgement of silence, drain, and its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use model::code;
use model::{GatewayId, Transport};
use tokio::time::sleep_until;
use wire::tunnel::{Beacon, Drain, ErrorCode, Frame, encode_beacon, encode_drain};

use crate::accept::{accept_exchanges, accept_resumes};
use crate::carrier::{SendStream, Vitals};
use crate::dial::replace_at;
use crate::gossip::Cursor;
use crate::health::{Advice, Health, Observation, Verdict, dead_after};
use crate::hello::{ControlError, ControlReader, ControlStream, Greeted};
use crate::limits::{NEWS_INTERVAL_MIN, TCP_DEAD_AFTER_MIN};
use crate::link::Link;
use crate::patience::Patience;
use crate::tunnel::Shared;
use crate::worker::WorkerContext;

/// A connection that retires is closed when it has been without exchanges for so long.
const RETIRE_AFTER: Duration = Duration::from_secs(1);
/// Control bytes that wait for the peer to read them; beyond it beacons are left out.
const UNSENT_BYTES_MAX: usize = 4096;

/// Takes a greeted connection into service and stays with it until it ends. `None`: the pair has
/// too many connections already.
pub(crate) fn start(context: &Arc<WorkerContext>, greeted: Greeted) -> Option<Arc<Link>> {
    let shared = &context.shared;
    let (now, wall) = shared.now();
    let Greeted { parts, control, head, siblings } = greeted;
    let least = shared.config.limits.replace_interval_min;
    let replace_at = replace_at(wall, parts.ends_at, least, rand::random());
    let link = Arc::new(Link::new(parts, siblings, now, wall, replace_at));
    if !shared.is_peer(&link.peer.cluster) {
        let text = format!("cluster {:?} is not a peer here", link.peer.cluster);
        link.die(ErrorCode::AdmissionRefused, text);
        return None;
    }
    if shared.registry.add(Arc::clone(&link), shared.gateway).is_err() {
        link.die(ErrorCode::Overloaded, "the gateway or its cluster has too many connections");
        return None;
    }
    if shared.closing.is_cancelled() {
        shared.end_link(&link, ErrorCode::NoError, "the gateway stops");
        return None;
    }
    shared.changed();
    shared.way_found();
    shared.gossip.hear(&link.peer.cluster, &[head], &[]);
    tracing::info!(
        cluster = %link.peer.cluster, gateway = %link.peer.gateway, class = link.class.as_str(),
        transport = link.transport().as_str(), worker = link.worker, dialled = link.dialled,
        remote = %link.peer.remote, "link up"
    );
    if link.transport() == Transport::Tcp {
        tracing::warn!(
            code = %code::TUNNEL_FALLBACK, cluster = %link.peer.cluster, remote = %link.peer.remote,
            "UDP does not pass: traffic runs over TCP until it does"
        );
    }
    tokio::spawn(accept_exchanges(Arc::clone(context), Arc::clone(&link)));
    if link.class == wire::tunnel::ConnectionClass::Bulk {
        tokio::spawn(accept_resumes(Arc::clone(shared), Arc::clone(&link)));
    }
    let ControlStream { send, reader } = control;
    // A new link talks for a moment: its first round-trip times are those of a handshake, and
    // clusters are ranked by them until there is traffic.
    let mut health = Health::new(now);
    health.probe(now);
    let task = ControlTask {
        shared: Arc::clone(shared),
        link: Arc::clone(&link),
        health,
        exchanges_seen: 0,
        drain_told: None,
        drain_heard: false,
        idle_since: now,
        news: Cursor::default(),
        news_at: None,
        siblings_told: 0,
        patience: shared.patiences.meet(link.peer.gateway, link.incarnation, now),
        writer: ControlWriter { send, unsent: BytesMut::new(), sequence: 0 },
    };
    tokio::spawn(task.run(reader));
    Some(link)
}

struct ControlTask {
    shared: Arc<Shared>,
    link: Arc<Link>,
    health: Health,
    exchanges_seen: u64,
    /// The grace of the last DRAIN here, until it was taken back.
    drain_told: Option<u32>,
    /// The peer has said DRAIN here, and has not taken it back.
    drain_heard: bool,
    idle_since: Instant,
    /// How far the peer was told of Heads and revocations here, and when last.
    news: Cursor,
    news_at: Option<Instant>,
    /// The version of the own cluster's gateways that the peer was told here.
    siblings_told: u64,
    /// What is known of the peer's process from all links to it.
    patience: Arc<Patience>,
    writer: ControlWriter,
}

impl ControlTask {
    async fn run(mut self, mut reader: ControlReader) {
        let link = Arc::clone(&self.link);
        let mut next_check_at = Instant::now();
        let end = loop {
            tokio::select! {
                error = link.connection.closed() => break link.lost(&error),
                () = sleep_until(next_check_at.into()) => {}
                () = link.wake.notified() => {}
                frame = reader.next() => {
                    self.received(frame);
                    continue;
                }
            }
            next_check_at = self.check();
        };
        self.shared.forget_link(&link);
        tracing::info!(
            cluster = %link.peer.cluster, gateway = %link.peer.gateway, class = link.class.as_str(),
            worker = link.worker, code = %end.code, reason = &*end.text, "link down"
        );
    }

    /// Looks after the link; when to look again.
    fn check(&mut self) -> Instant {
        let now = Instant::now();
        let link = &self.link;
        let Vitals { rtt, rtt_var, heard } = link.connection.vitals();
        link.set_rtt(rtt);
        if link.take_probe() {
            self.health.probe(now);
        }
        let is_busy = self.is_pair_busy();
        let link = &self.link;
        let least = match link.transport() {
            Transport::Quic => Duration::ZERO,
            Transport::Tcp => TCP_DEAD_AFTER_MIN,
        };
        let patience = self.patience.dead_after(now).max(least);
        let seen = Observation { heard, is_busy, rtt, rtt_var, patience };
        let advice = self.health.check(now, seen);
        let Advice { verdict, beacon_due, silence_ended, loop_stood_still, next_check_at } = advice;
        if let Some(silence) = silence_ended {
            self.patience.heard_after(silence, now);
        }
        if loop_stood_still {
            link.stalls.excuse();
        }
        link.set_talking(self.health.is_talking());
        if let Verdict::Silent(silence) | Verdict::Unheard(silence) = verdict {
            self.declare_dead(verdict, silence);
            return next_check_at;
        }
        let silence = self.health.heard_age(now);
        let is_suspect = is_busy && silence * 2 > dead_after(rtt, rtt_var).max(least);
        if link.set_suspect(is_suspect) && !is_suspect {
            self.shared.way_found();
        }
        self.relieve_stalls();
        self.retire(now);
        let is_back = self.tell_drain();
        let (news_due, next_check_at) = self.news_due(now, next_check_at);
        let siblings_due = self.shared.gossip.siblings().version != self.siblings_told;
        if beacon_due || news_due || siblings_due || is_back {
            self.beacon(now, silence, news_due);
        }
        next_check_at
    }

    /// Says DRAIN when it is due. `true`: it is taken back, which the next beacon says.
    fn tell_drain(&mut self) -> bool {
        let grace_ms = self.shared.drain_grace();
        let before = std::mem::replace(&mut self.drain_told, grace_ms);
        match grace_ms {
            Some(grace_ms) if before != Some(grace_ms) => self.writer.drain(grace_ms),
            _ => {}
        }
        before.is_some() && grace_ms.is_none()
    }

    fn beacon(&mut self, now: Instant, silence: Duration, with_news: bool) {
        let (heads, revocations, cursor) = if with_news {
            self.shared.gossip.told().after(self.news)
        } else {
            (Vec::new(), Vec::new(), self.news)
        };
        let siblings = self.shared.gossip.siblings();
        let ids = match siblings.version == self.siblings_told {
            true => Vec::new(),
            false => siblings.ids.clone(),
        };
        let draining = self.drain_told.is_some();
        let told = Told { draining, heads, revocations, siblings: ids };
        if self.writer.beacon(&self.shared, silence, told) {
            self.siblings_told = siblings.version;
            if with_news {
                (self.news, self.news_at) = (cursor, Some(now));
            }
        }
    }

    /// Whether Heads or revocations are to be told now, and when to look again. One connection of
    /// the pair tells them.
    fn news_due(&self, now: Instant, next_check_at: Instant) -> (bool, Instant) {
        if !self.shared.gossip.told().has_after(self.news) {
            return (false, next_check_at);
        }
        let links = self.shared.registry.peek();
        let rank = |link: &&Arc<Link>| (link.rank(), link.class, link.slot, link.established);
        let teller = links.pair_of(&self.link).filter(|link| link.is_live()).min_by_key(rank);
        if !teller.is_some_and(|teller| Arc::ptr_eq(teller, &self.link)) {
            return (false, next_check_at);
        }
        let due_at = self.news_at.map_or(now, |at| at + NEWS_INTERVAL_MIN);
        let again_at = now.max(due_at) + NEWS_INTERVAL_MIN;
        (due_at <= now, next_check_at.min(if due_at <= now { again_at } else { due_at }))
    }

    /// The links of a pair talk and fall silent together, so that a cut is seen on each of them at
    /// the same time, also on those that carry nothing just now.
    fn is_pair_busy(&mut self) -> bool {
        let (mut in_flight, mut exchanges) = (0, 0);
        for link in self.shared.registry.peek().pair_of(&self.link) {
            in_flight += link.in_flight();
            exchanges += link.exchanges();
        }
        let is_busy = in_flight > 0 || exchanges != self.exchanges_seen;
        self.exchanges_seen = exchanges;
        is_busy
    }

    fn declare_dead(&self, verdict: Verdict, silence: Duration) {
        let ms = silence.as_millis();
        let text = match verdict {
            Verdict::Unheard(_) => format!("the peer has not heard this side for {ms} ms"),
            _ => format!("nothing was heard for {ms} ms"),
        };
        self.patience.died(silence, Instant::now());
        self.shared.counts.of(self.link.worker).links_dead();
        self.shared.end_link(&self.link, ErrorCode::PeerSilent, text);
    }

    fn relieve_stalls(&self) {
        let link = &self.link;
        let reset = link.stalls.relieve(link.stream_window_bytes, link.connection_window_bytes);
        for _ in 0..reset {
            self.shared.counts.of(self.link.worker).stalled_readers_reset();
        }
    }

    /// Closes a connection that another one made superfluous, once nothing uses it. That is counted from
    /// when it retires, so that the peer, too, has time to learn it.
    fn retire(&mut self, now: Instant) {
        if self.link.is_used() || !self.link.closes_here() {
            self.idle_since = now;
            return;
        }
        let (idle_max, code, text) = if self.link.is_replaced() {
            let text = "a younger connection is in its place";
            (self.shared.config.limits.replaced_link_idle, ErrorCode::NoError, text)
        } else {
            let text = "another connection is in its place";
            (RETIRE_AFTER, ErrorCode::DuplicateConnection, text)
        };
        if now.saturating_duration_since(self.idle_since) > idle_max {
            self.shared.end_link(&self.link, code, text);
        }
    }

    fn received(&mut self, frame: Result<Option<Frame>, ControlError>) {
        let link = &Arc::clone(&self.link);
        match frame {
            Ok(Some(Frame::Beacon(beacon))) if beacon.incarnation == link.incarnation => {
                link.prove();
                link.set_peer_load_permille(beacon.load_permille);
                match beacon.draining {
                    true => self.peer_drains(),
                    false => self.peer_stays(),
                }
                let Beacon { heads, revocations, siblings, .. } = &beacon;
                if !siblings.is_empty() && link.set_siblings(siblings) {
                    self.shared.changed(); // somebody may be missing
                }
                self.shared.gossip.hear(&link.peer.cluster, heads, revocations);
                let heard_age = Duration::from_millis(beacon.heard_age_ms.into());
                self.health.beacon_received(Instant::now(), heard_age);
            }
            Ok(Some(Frame::Beacon(_))) => {} // a late packet of an earlier process cannot be here
            Ok(Some(Frame::Drain(_))) => self.peer_drains(),
            Ok(Some(frame)) => {
                let text = format!("{} on the control stream", frame.frame_type());
                self.shared.end_link(link, ErrorCode::FrameOutOfOrder, text);
            }
            // Over TCP the reason and the end come together; the connection has the reason.
            Ok(None) if link.connection.close_reason().is_some() => {}
            Ok(None) => {
                let text = "the control stream ended: both sides keep it open";
                self.shared.end_link(link, ErrorCode::FrameOutOfOrder, text);
            }
            Err(ControlError::Malformed(error)) => {
                self.shared.end_link(link, error.code(), error.to_string());
            }
            Err(ControlError::Read(error)) => {
                // Mostly the connection's own end, whose reason stands already.
                if link.connection.close_reason().is_none() {
                    let text = format!("the control stream broke: {error}");
                    self.shared.end_link(link, ErrorCode::FrameOutOfOrder, text);
                }
            }
        }
    }

    /// DRAIN speaks for the peer's whole gateway.
    fn peer_drains(&mut self) {
        self.drain_heard = true;
        let mut is_new = false;
        for other in self.shared.registry.load().pair_of(&self.link) {
            is_new |= other.set_peer_draining();
        }
        if is_new {
            self.shared.changed(); // another way is dialled at once
        }
    }

    /// A beacon that does not say so takes back what was said before it on the same link: on another one
    /// it may be older than DRAIN.
    fn peer_stays(&mut self) {
        if !std::mem::take(&mut self.drain_heard) {
            return;
        }
        let mut is_new = false;
        for other in self.shared.registry.load().pair_of(&self.link) {
            is_new |= other.clear_peer_draining();
        }
        if is_new {
            self.shared.changed(); // links that are missing are dialled
            self.shared.way_found();
        }
    }
}

/// What a beacon says besides the state of its sender.
struct Told {
    draining: bool,
    heads: Vec<Bytes>,
    revocations: Vec<Bytes>,
    siblings: Vec<GatewayId>,
}

/// Writes the control stream without ever waiting: a beacon that finds no room is left out.
#[derive(Debug)]
struct ControlWriter {
    send: SendStream,
    unsent: BytesMut,
    sequence: u64,
}

impl ControlWriter {
    /// `false`: it was left out.
    fn beacon(&mut self, shared: &Shared, heard_age: Duration, told: Told) -> bool {
        if self.unsent.len() > UNSENT_BYTES_MAX {
            return false;
        }
        self.sequence += 1;
        let beacon = Beacon {
            incarnation: shared.config.incarnation,
            sequence: self.sequence,
            heard_age_ms: u32::try_from(heard_age.as_millis()).unwrap_or(u32::MAX),
            in_flight: shared.in_flight(),
            load_permille: shared.load_permille(),
            draining: told.draining,
            heads: told.heads,
            revocations: told.revocations,
            siblings: told.siblings,
        };
        encode_beacon(&beacon, &mut self.unsent)
            .expect("load, Heads and revocations were bounded when they were set");
        self.flush();
        true
    }

    fn drain(&mut self, grace_ms: u32) {
        encode_drain(&Drain { grace_ms }, &mut self.unsent)
            .expect("the grace was bounded when the drain began");
        self.flush();
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.send.write(&self.unsent).now_or_never() {
                Some(Ok(written)) => self.unsent.advance(written),
                // No room now, or the connection ended: that is noticed elsewhere.
                _ => return,
            }
        }
    }
}
