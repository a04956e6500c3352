//! One live connection to one gateway of another cluster, as all workers see it.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use model::{ClusterName, GatewayId, SpiffeId, Transport};
use quinn::{ConnectionError, TransportErrorCode, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::sync::Notify;
use wire::tunnel::{ConnectionClass, Dispatched, ErrorCode};

use crate::carrier::Connection;
use crate::error::{StreamError, StreamErrorKind};
use crate::stall::StallWatch;

/// Who is at the other end, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub cluster: ClusterName,
    pub gateway: GatewayId,
    pub spiffe_id: SpiffeId,
    /// Where the connection came from, or went to, when it was made.
    pub remote: SocketAddr,
}

/// A connection after HELLO.
#[derive(Debug)]
pub(crate) struct Link {
    /// What was known from the beginning; read as if it were the link's own.
    parts: LinkParts,
    pub(crate) established: Instant,
    pub(crate) established_at: SystemTime,
    pub(crate) stalls: StallWatch,
    /// Wakes the control task: an exchange began, a drain, a probe.
    pub(crate) wake: Notify,
    in_flight: AtomicU32,
    exchanges: AtomicU64,
    is_live: AtomicBool,
    /// Whether the control task sends beacons at the pace of a talk.
    is_talking: AtomicBool,
    /// Set when silence has gone on for half of what death needs: others are preferred.
    is_suspect: AtomicBool,
    /// Set when an equal connection is to stay in this one's place.
    is_retiring: AtomicBool,
    /// Whether it is for this side to close it then, once nothing uses it.
    closes_here: AtomicBool,
    /// Set when that one is younger and its SVIDs end later.
    is_replaced: AtomicBool,
    /// Set until the peer has shown that it uses this link, which is to replace another one.
    is_unproven: AtomicBool,
    proof: Notify,
    /// From when on its dialler looks for a younger one.
    pub(crate) replace_at: SystemTime,
    /// Directions that exchanges of other links have here, and ends that are not acknowledged.
    leases: AtomicU32,
    peer_draining: AtomicBool,
    peer_load_permille: AtomicU32,
    rtt_us: AtomicU64,
    is_probed: AtomicBool,
    /// The gateways of the peer's cluster that serve, as it last said.
    siblings: ArcSwap<Vec<GatewayId>>,
    end: OnceLock<LinkEnd>,
}

/// How good a link is for new exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LinkRank {
    Sound,
    /// Sound, and over TCP: for as long as there is nothing better.
    Fallback,
    /// Silent for half of what death needs, on its way out for an equal one, or not known to be used by
    /// the peer.
    Doubtful,
    Draining,
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkEnd {
    pub(crate) code: ErrorCode,
    pub(crate) text: Arc<str>,
}

/// What is known of a connection when HELLOs were exchanged.
#[derive(Debug)]
pub(crate) struct LinkParts {
    pub(crate) connection: Connection,
    pub(crate) peer: Arc<PeerIdentity>,
    /// The peer's certificates, to be judged again when trust changes.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// When the peer's SVID runs out.
    pub(crate) svid_not_after: SystemTime,
    /// When the first of both sides' SVIDs runs out.
    pub(crate) ends_at: SystemTime,
    /// It was dialled to replace another one.
    pub(crate) replaces: bool,
    pub(crate) class: ConnectionClass,
    /// Our worker that drives the connection.
    pub(crate) worker: u8,
    /// The dialler's worker: a pair has one connection of a class in each slot.
    pub(crate) slot: u8,
    /// The peer's worker that drives it over there.
    pub(crate) peer_worker: u8,
    pub(crate) dialled: bool,
    /// As configured, if we dialled.
    pub(crate) address: Option<String>,
    /// The peer process's.
    pub(crate) incarnation: u64,
    /// Bytes that one stream of ours may receive before its reader reads.
    pub(crate) stream_window_bytes: u64,
    pub(crate) connection_window_bytes: u64,
}

impl Deref for Link {
    type Target = LinkParts;

    fn deref(&self) -> &LinkParts {
        &self.parts
    }
}

impl Link {
    pub(crate) fn new(
        parts: LinkParts,
        siblings: Vec<GatewayId>,
        now: Instant,
        wall: SystemTime,
        replace_at: SystemTime,
    ) -> Self {
        let is_unproven = AtomicBool::new(parts.replaces);
        let rtt_us = parts.connection.rtt().as_micros() as u64;
        Self {
            stalls: StallWatch::new(now),
            parts,
            established: now,
            established_at: wall,
            wake: Notify::new(),
            in_flight: AtomicU32::new(0),
            exchanges: AtomicU64::new(0),
            is_talking: AtomicBool::new(false),
            is_live: AtomicBool::new(true),
            is_suspect: AtomicBool::new(false),
            is_retiring: AtomicBool::new(false),
            closes_here: AtomicBool::new(false),
            is_replaced: AtomicBool::new(false),
            is_unproven,
            proof: Notify::new(),
            replace_at,
            leases: AtomicU32::new(0),
            peer_draining: AtomicBool::new(false),
            peer_load_permille: AtomicU32::new(0),
            rtt_us: AtomicU64::new(rtt_us),
            is_probed: AtomicBool::new(false),
            siblings: ArcSwap::from_pointee(siblings),
            end: OnceLock::new(),
        }
    }

    pub(crate) fn transport(&self) -> Transport {
        self.connection.transport()
    }

    /// Counts an exchange; true if the pair has to be woken for it.
    pub(crate) fn begin_exchange(&self) -> bool {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        !self.is_talking.load(Ordering::Relaxed)
    }

    pub(crate) fn end_exchange(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Exchanges since the beginning: whether one came and went between two looks.
    pub(crate) fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Whether anything of an exchange runs on it.
    pub(crate) fn is_used(&self) -> bool {
        self.in_flight() > 0 || self.leases.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn set_talking(&self, is_talking: bool) {
        self.is_talking.store(is_talking, Ordering::Relaxed);
    }

    pub(crate) fn is_live(&self) -> bool {
        self.is_live.load(Ordering::Acquire)
    }

    /// Whether it keeps its place, so that nothing is dialled for that: a peer that drains goes, and
    /// over TCP no place is kept, so that QUIC is tried on.
    pub(crate) fn covers(&self) -> bool {
        self.transport() == Transport::Quic && self.is_live() && !self.peer_draining()
    }

    /// Which links are to be preferred for new exchanges: the smallest. A gateway that drains serves
    /// for a moment, and says so when it does not.
    pub(crate) fn rank(&self) -> LinkRank {
        if self.peer_draining() {
            LinkRank::Draining
        } else if self.is_suspect() || self.is_retiring() || self.is_unproven() {
            LinkRank::Doubtful
        } else {
            match self.transport() {
                Transport::Quic => LinkRank::Sound,
                Transport::Tcp => LinkRank::Fallback,
            }
        }
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }

    /// Whether that is new.
    pub(crate) fn set_suspect(&self, is_suspect: bool) -> bool {
        self.is_suspect.swap(is_suspect, Ordering::Relaxed) != is_suspect
    }

    pub(crate) fn is_retiring(&self) -> bool {
        self.is_retiring.load(Ordering::Relaxed)
    }

    /// Takes the link out of use; `closes_here`: this side closes it when its exchanges have ended.
    pub(crate) fn retire(&self, closes_here: bool) {
        self.closes_here.store(closes_here, Ordering::Relaxed);
        self.is_retiring.store(true, Ordering::Relaxed);
    }

    /// The same for a younger link whose SVIDs end later.
    pub(crate) fn retire_for_younger(&self, closes_here: bool) {
        self.is_replaced.store(true, Ordering::Relaxed);
        self.retire(closes_here);
    }

    pub(crate) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    /// The younger link has gone first: this one serves on.
    pub(crate) fn restore(&self) {
        self.is_replaced.store(false, Ordering::Relaxed);
        self.is_retiring.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_unproven(&self) -> bool {
        self.is_unproven.load(Ordering::Relaxed)
    }

    /// The peer has said something that it says of links in use only.
    pub(crate) fn prove(&self) {
        if self.is_unproven.swap(false, Ordering::Relaxed) {
            self.proof.notify_one();
        }
    }

    /// Whether the peer takes the link into use before it ends. For one caller.
    pub(crate) async fn proven(&self) -> bool {
        tokio::select! {
            () = self.proof.notified() => self.is_live(),
            _ = self.connection.closed() => false,
        }
    }

    pub(crate) fn closes_here(&self) -> bool {
        self.is_retiring() && self.closes_here.load(Ordering::Relaxed)
    }

    pub(crate) fn peer_draining(&self) -> bool {
        self.peer_draining.load(Ordering::Relaxed)
    }

    /// `true`: it was not known yet.
    pub(crate) fn set_peer_draining(&self) -> bool {
        !self.peer_draining.swap(true, Ordering::Relaxed)
    }

    /// The peer serves as before. `true`: it was not known yet.
    pub(crate) fn clear_peer_draining(&self) -> bool {
        self.peer_draining.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn siblings(&self) -> Arc<Vec<GatewayId>> {
        self.siblings.load_full()
    }

    /// `true`: it was not known yet.
    pub(crate) fn set_siblings(&self, siblings: &[GatewayId]) -> bool {
        let is_new = self.siblings.load().as_slice() != siblings;
        if is_new {
            self.siblings.store(Arc::new(siblings.to_vec()));
        }
        is_new
    }

    pub(crate) fn peer_load_permille(&self) -> u32 {
        self.peer_load_permille.load(Ordering::Relaxed)
    }

    pub(crate) fn set_peer_load_permille(&self, load: u32) {
        self.peer_load_permille.store(load, Ordering::Relaxed);
    }

    pub(crate) fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_us.load(Ordering::Relaxed))
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        self.rtt_us.store(rtt.as_micros() as u64, Ordering::Relaxed);
    }

    /// Asks the control task to find out whether the peer is still there.
    pub(crate) fn probe(&self) {
        self.is_probed.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    pub(crate) fn take_probe(&self) -> bool {
        self.is_probed.swap(false, Ordering::Relaxed)
    }

    /// Ends the link: nothing chooses it any more, and every exchange on it fails at once. The
    /// first reason stays.
    pub(crate) fn die(&self, code: ErrorCode, text: impl Into<Arc<str>>) {
        let text = text.into();
        let reason = text.as_bytes()[..text.floor_char_boundary(REASON_BYTES_MAX)].to_vec();
        let _ = self.end.set(LinkEnd { code, text });
        self.is_live.store(false, Ordering::Release);
        self.connection.close(close_code(code), &reason);
    }

    /// The connection ended by itself or by the peer.
    pub(crate) fn lost(&self, error: &ConnectionError) -> LinkEnd {
        self.is_live.store(false, Ordering::Release);
        self.end.get_or_init(|| describe(error)).clone()
    }

    pub(crate) fn end(&self) -> Option<&LinkEnd> {
        self.end.get()
    }

    /// What an exchange on this link is told when the connection ended.
    pub(crate) fn stream_error(&self, error: &ConnectionError) -> StreamError {
        let end = self.end.get().cloned().unwrap_or_else(|| describe(error));
        let text = format!("the connection to {} ended: {}", self.peer.spiffe_id, end.text);
        StreamError::new(StreamErrorKind::ConnectionLost, end.code, Dispatched::Maybe, text)
    }
}

/// Something of an exchange that runs on a link without being counted there: while it lives the link is
/// used.
#[derive(Debug)]
pub(crate) struct LinkLease(Arc<Link>);

impl LinkLease {
    pub(crate) fn of(link: &Arc<Link>) -> Self {
        link.leases.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(link))
    }
}

impl Drop for LinkLease {
    fn drop(&mut self) {
        self.0.leases.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Longest reason in a CONNECTION_CLOSE frame: it must fit one packet.
const REASON_BYTES_MAX: usize = 512;

pub(crate) fn close_code(code: ErrorCode) -> VarInt {
    VarInt::from_u64(code.number()).expect("registered codes are small")
}

/// An end that we did not choose, in our terms.
pub(crate) fn describe(error: &ConnectionError) -> LinkEnd {
    let (code, text) = match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = ErrorCode::from_number(close.error_code.into_inner());
            let reason = String::from_utf8_lossy(&close.reason);
            let reason = if reason.is_empty() { "no reason given".into() } else { reason };
            (code, format!("the peer closed it: {code}: {reason}"))
        }
        ConnectionError::TimedOut => {
            (ErrorCode::PeerSilent, "nothing was heard for the idle timeout".to_owned())
        }
        ConnectionError::Reset => {
            (ErrorCode::PeerSilent, "the peer does not know it any more (it restarted)".to_owned())
        }
        ConnectionError::LocallyClosed => (ErrorCode::NoError, "closed here".to_owned()),
        ConnectionError::ConnectionClosed(close) => match tls_alert(close.error_code) {
            Some(NO_APPLICATION_PROTOCOL) => {
                let text = "the peer does not speak fedgate-tunnel/1 (TLS alert 120)".to_owned();
                (ErrorCode::UnsupportedVersion, text)
            }
            Some(CERTIFICATE_REVOKED) => {
                let text = "the peer refused this gateway's certificate as revoked (TLS alert 44): \
                            this cluster denied it, and a new one follows; or it was revoked itself";
                (ErrorCode::AdmissionRefused, text.to_owned())
            }
            Some(alert) if CERTIFICATE_ALERTS.contains(&alert) => {
                let text = format!(
                    "the peer refused this gateway's certificate (TLS alert {alert}): its \
                     ClusterPeer must have this cluster's trust domain and bundle"
                );
                (ErrorCode::AdmissionRefused, text)
            }
            _ => (ErrorCode::Internal, format!("the peer's transport closed it: {close}")),
        },
        other => (ErrorCode::Internal, other.to_string()),
    };
    LinkEnd { code, text: text.into() }
}

/// RFC 7301 §3.2.
const NO_APPLICATION_PROTOCOL: u8 = 120;
/// RFC 8446 §6.2.
const CERTIFICATE_REVOKED: u8 = 44;
/// The same: bad, unsupported, expired or unknown certificate, unknown CA, access denied, and none sent.
const CERTIFICATE_ALERTS: [u8; 7] = [42, 43, 45, 46, 48, 49, 116];

/// RFC 9001 §4.8: alerts are the codes from 0x100 to 0x1ff.
pub(crate) fn tls_alert(code: TransportErrorCode) -> Option<u8> {
    let code = u64::from(code);
    (0x100..0x200).contains(&code).then_some((code & 0xff) as u8)
}
