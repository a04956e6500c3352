//! What can go wrong, in families: binding, opening an exchange, using one.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use model::ClusterName;
use model::code::{self, Code};
use wire::tunnel::{DecodeError, Dispatched, EncodeError, ErrorCode, StreamReset};

/// Why a tunnel could not be bound or a worker not be started.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("tunnel.{field} = {value}: {fix}")]
    Invalid { field: &'static str, value: String, fix: &'static str },
    #[error("this gateway has no SVID yet: enrol it before its port is bound")]
    NoSvid,
    #[error("cannot {action} UDP {address}: {source}: {fix}")]
    Socket { action: &'static str, address: SocketAddr, source: io::Error, fix: &'static str },
    #[error("the TLS provider lacks the suite of QUIC's first packets: build with aws-lc-rs")]
    NoInitialSuite,
    #[error("worker {worker} was started outside a tokio runtime: start it inside its thread's")]
    NoRuntime { worker: u8 },
}

impl BindError {
    pub(crate) fn invalid(
        field: &'static str,
        value: impl fmt::Display,
        fix: &'static str,
    ) -> Self {
        Self::Invalid { field, value: value.to_string(), fix }
    }

    /// The registered code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Socket { .. } => code::ADDRESS_IN_USE,
            Self::NoSvid => code::SVID_MISSING,
            _ => code::CONFIG_INVALID,
        }
    }
}

/// Why an exchange was not begun. Nothing of it was dispatched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("there is no live tunnel to cluster {cluster:?}: `fedctl links` shows the last errors")]
    NoTunnel { cluster: ClusterName },
    #[error(
        "every tunnel to cluster {cluster:?} has as many streams open as its peer allows: add \
         gateways or workers, or raise streams_max there"
    )]
    Overloaded { cluster: ClusterName },
    #[error("the tunnel to cluster {cluster:?} broke while the exchange was opened: {reason}")]
    Lost { cluster: ClusterName, reason: String },
    #[error(transparent)]
    Invalid(#[from] EncodeError),
}

impl OpenError {
    /// The code as the peer would have said it; the dispatch is always `no`.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoTunnel { .. } | Self::Lost { .. } => ErrorCode::PeerSilent,
            Self::Overloaded { .. } => ErrorCode::Overloaded,
            Self::Invalid(_) => ErrorCode::Internal,
        }
    }

    /// The code that a person is shown.
    pub fn fed_code(&self) -> Code {
        match self {
            Self::NoTunnel { .. } | Self::Lost { .. } => code::TUNNEL_DOWN,
            Self::Overloaded { .. } => code::TUNNEL_OVERLOADED,
            Self::Invalid(_) => code::BAD_REQUEST,
        }
    }
}

/// Why an exchange ended before its END.
#[derive(Debug, Clone)]
pub struct StreamError {
    pub code: ErrorCode,
    /// Whether the application may have seen any of the exchange.
    pub dispatched: Dispatched,
    pub kind: StreamErrorKind,
    text: Arc<str>,
}

/// Who ended it and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamErrorKind {
    /// The peer said so, by RESET_STREAM or STOP_SENDING.
    Reset,
    /// The stream ended without END.
    Truncated,
    /// The connection under it died or was closed.
    ConnectionLost,
    /// The peer broke the protocol.
    Malformed,
    /// Something that was due did not come in time.
    Timeout,
    /// This side ended it, or was asked to send what cannot be sent.
    Local,
}

impl StreamError {
    pub(crate) fn new(
        kind: StreamErrorKind,
        code: ErrorCode,
        dispatched: Dispatched,
        text: impl Into<Arc<str>>,
    ) -> Self {
        Self { code, dispatched, kind, text: text.into() }
    }

    pub(crate) fn reset(packed: u64) -> Self {
        let StreamReset { code, dispatched } = StreamReset::unpack(packed);
        let text = format!("the peer ended the stream: {code}");
        Self::new(StreamErrorKind::Reset, code, dispatched, text)
    }

    pub(crate) fn malformed(error: &DecodeError) -> Self {
        let kind = match error.code() {
            ErrorCode::Truncated => StreamErrorKind::Truncated,
            _ => StreamErrorKind::Malformed,
        };
        Self::new(kind, error.code(), Dispatched::Maybe, error.to_string())
    }

    pub(crate) fn local(code: ErrorCode, text: &str) -> Self {
        Self::new(StreamErrorKind::Local, code, Dispatched::Maybe, text)
    }

    pub(crate) fn timeout(code: ErrorCode, text: &str) -> Self {
        Self::new(StreamErrorKind::Timeout, code, Dispatched::Maybe, text)
    }

    /// What happened, without the dispatch.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The code that a person is shown, if this is a failure that a person can meet.
    pub fn fed_code(&self) -> Option<Code> {
        self.code.entry().fed
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (dispatched: {})", self.text, self.dispatched.as_str())
    }
}

impl std::error::Error for StreamError {}

impl From<EncodeError> for StreamError {
    fn from(error: EncodeError) -> Self {
        let (kind, code) = (StreamErrorKind::Local, ErrorCode::Internal);
        Self::new(kind, code, Dispatched::No, error.to_string())
    }
}
