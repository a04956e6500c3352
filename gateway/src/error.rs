//! What can go wrong with a request, and three questions that it answers: whose fault is it, may it
//! be tried again, and did the application see it.
//!
//! `respond.rs` has the one match that turns a [`Kind`] into status, gRPC code, flag and FED code.

use std::borrow::Cow;
use std::fmt;

use model::snapshot::Destination;
use tunnel::{StreamError, StreamErrorKind};
use wire::tunnel::{Dispatched, ErrorCode, Refused};

use crate::access_log::Role;

/// Why a request or connection was not served, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request breaks a rule of HTTP, or one of ours (`http/target.rs`).
    BadRequest,
    /// The request's head has more fields or bytes than tunnel v1 carries.
    HeadTooLarge,
    /// CONNECT, or an upgrade that is not served.
    MethodNotServed,
    /// The client went away or broke its body off.
    ClientGone,
    /// No route matches host and path, or the listener has none.
    NoRoute,
    /// The route leads to no backend that it may use.
    BackendUnresolved,
    /// No cluster has a ready endpoint.
    NoEndpoint,
    /// This gateway has no SVID, so no peer would listen to it.
    NoIdentity,
    /// Every cluster that serves the service is behind a tunnel that is down.
    TunnelDown,
    /// The tunnel broke while the exchange was on it.
    TunnelLost,
    /// The endpoint did not accept a connection.
    ConnectFailed,
    /// The application broke the exchange off.
    UpstreamReset,
    /// A message ended before its end.
    Truncated,
    /// No response in time.
    Deadline,
    /// The destination's policy does not allow the caller.
    Denied,
    /// The destination has no such service, or does not export it.
    NotExported,
    /// The request had been here before, or passed too many clusters.
    Loop,
    /// The destination has not yet heard of what the source serves.
    NotYet,
    /// A limit on exchanges was reached.
    Overloaded,
    /// The gateway shuts down.
    Draining,
    /// A peer broke tunnel v1.
    PeerProtocol,
    /// A peer's claim and its certificate differ.
    IdentityRefused,
    /// The reader of a stream did not read for too long.
    StalledReader,
    /// A fault of ours.
    Internal,
}

impl Kind {
    /// For tables that must be total.
    pub const ALL: [Self; 24] = [
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::MethodNotServed,
        Self::ClientGone,
        Self::NoRoute,
        Self::BackendUnresolved,
        Self::NoEndpoint,
        Self::NoIdentity,
        Self::TunnelDown,
        Self::TunnelLost,
        Self::ConnectFailed,
        Self::UpstreamReset,
        Self::Truncated,
        Self::Deadline,
        Self::Denied,
        Self::NotExported,
        Self::Loop,
        Self::NotYet,
        Self::Overloaded,
        Self::Draining,
        Self::PeerProtocol,
        Self::IdentityRefused,
        Self::StalledReader,
        Self::Internal,
    ];

    /// Whose fault it is.
    pub fn blame(self) -> Blame {
        match self {
            Self::BadRequest
            | Self::HeadTooLarge
            | Self::MethodNotServed
            | Self::ClientGone
            | Self::StalledReader => Blame::Downstream,
            Self::NoEndpoint | Self::ConnectFailed | Self::UpstreamReset | Self::Deadline => {
                Blame::Upstream
            }
            Self::TunnelDown
            | Self::TunnelLost
            | Self::Truncated
            | Self::NotYet
            | Self::Overloaded
            | Self::Draining
            | Self::PeerProtocol => Blame::Peer,
            Self::NoRoute
            | Self::BackendUnresolved
            | Self::Denied
            | Self::NotExported
            | Self::Loop
            | Self::IdentityRefused => Blame::Policy,
            Self::NoIdentity | Self::Internal => Blame::Internal,
        }
    }

    /// Whether another attempt can help.
    pub fn retry(self) -> Retry {
        match self {
            Self::BadRequest
            | Self::HeadTooLarge
            | Self::MethodNotServed
            | Self::ClientGone
            | Self::NoRoute
            | Self::BackendUnresolved
            | Self::NoIdentity
            | Self::Deadline
            | Self::Loop
            | Self::IdentityRefused
            | Self::StalledReader => Retry::Never,
            // Another cluster may have a laxer policy; looking for it is not a gateway's to do.
            Self::Denied => Retry::Never,
            Self::NotYet => Retry::Later,
            Self::NoEndpoint
            | Self::TunnelDown
            | Self::TunnelLost
            | Self::ConnectFailed
            | Self::UpstreamReset
            | Self::Truncated
            | Self::NotExported
            | Self::Overloaded
            | Self::Draining
            | Self::PeerProtocol
            | Self::Internal => Retry::Elsewhere,
        }
    }

    /// What the end of a stream means where the request came from. A peer that cancels speaks of
    /// itself: our own client's leaving is known here, and ends the stream from this side.
    pub fn at_source(how: StreamErrorKind, code: ErrorCode) -> Self {
        match (how, code) {
            (StreamErrorKind::Reset, ErrorCode::Cancelled) => Self::Truncated,
            _ => Self::at_destination(how, code),
        }
    }

    /// What the end of a stream means where the endpoint is.
    pub fn at_destination(how: StreamErrorKind, code: ErrorCode) -> Self {
        match (how, code) {
            // The peer closed the connection under an exchange, whatever it had to say of it; or one side
            // trusts its certificates no more, which says nothing of younger ones.
            (StreamErrorKind::ConnectionLost, ErrorCode::NoError | ErrorCode::AdmissionRefused) => {
                Self::TunnelLost
            }
            (_, code) => Self::of_code(code),
        }
    }

    /// What a code of tunnel v1 means to the side that is told it.
    pub fn of_code(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NoError | ErrorCode::UpstreamReset => Self::UpstreamReset,
            ErrorCode::Cancelled => Self::ClientGone,
            ErrorCode::Draining => Self::Draining,
            ErrorCode::UnsupportedVersion
            | ErrorCode::HelloTimeout
            | ErrorCode::DuplicateConnection
            | ErrorCode::PeerSilent
            | ErrorCode::ResumeTimeout => Self::TunnelLost,
            ErrorCode::AdmissionRefused | ErrorCode::BadIdentity => Self::IdentityRefused,
            ErrorCode::MalformedFrame
            | ErrorCode::FrameTooLarge
            | ErrorCode::FrameOutOfOrder
            | ErrorCode::UnknownOddFrame => Self::PeerProtocol,
            ErrorCode::UnsupportedKind => Self::MethodNotServed,
            ErrorCode::Truncated => Self::Truncated,
            ErrorCode::RefusedLoop | ErrorCode::TooManyHops => Self::Loop,
            ErrorCode::NoSuchService | ErrorCode::NotExported => Self::NotExported,
            ErrorCode::DeniedByPolicy => Self::Denied,
            ErrorCode::NoReadyEndpoint => Self::NoEndpoint,
            ErrorCode::NotYet => Self::NotYet,
            ErrorCode::Overloaded => Self::Overloaded,
            ErrorCode::UpstreamConnectFailed => Self::ConnectFailed,
            ErrorCode::DeadlineExceeded => Self::Deadline,
            ErrorCode::StalledReader => Self::StalledReader,
            ErrorCode::Internal | ErrorCode::Unregistered(_) => Self::Internal,
        }
    }

    /// The code of tunnel v1 with which a destination tells the source.
    pub fn to_code(self) -> ErrorCode {
        match self {
            Self::ClientGone => ErrorCode::Cancelled,
            Self::NoRoute | Self::BackendUnresolved | Self::NotExported => ErrorCode::NotExported,
            Self::NoEndpoint => ErrorCode::NoReadyEndpoint,
            Self::ConnectFailed => ErrorCode::UpstreamConnectFailed,
            Self::UpstreamReset => ErrorCode::UpstreamReset,
            Self::Truncated => ErrorCode::Truncated,
            Self::Deadline => ErrorCode::DeadlineExceeded,
            Self::Denied => ErrorCode::DeniedByPolicy,
            Self::Loop => ErrorCode::RefusedLoop,
            Self::NotYet => ErrorCode::NotYet,
            Self::Overloaded => ErrorCode::Overloaded,
            Self::Draining => ErrorCode::Draining,
            Self::IdentityRefused => ErrorCode::BadIdentity,
            Self::StalledReader => ErrorCode::StalledReader,
            Self::BadRequest | Self::PeerProtocol => ErrorCode::MalformedFrame,
            Self::HeadTooLarge => ErrorCode::FrameTooLarge,
            Self::MethodNotServed => ErrorCode::UnsupportedKind,
            Self::NoIdentity | Self::TunnelDown | Self::TunnelLost | Self::Internal => {
                ErrorCode::Internal
            }
        }
    }
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    Downstream,
    Upstream,
    Peer,
    Policy,
    Internal,
}

/// Whether another attempt can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    Never,
    /// At another endpoint or cluster.
    Elsewhere,
    /// Also at the same place, a moment later.
    Later,
}

/// Why a request or connection was not served, with what is needed to try again or to answer.
#[derive(Debug)]
pub struct ProxyError {
    pub kind: Kind,
    /// Whether any byte may have reached the application.
    pub dispatched: Dispatched,
    /// For the log of this cluster; never sent to a client.
    pub detail: Cow<'static, str>,
}

impl ProxyError {
    /// A failure before anything was sent to an application.
    pub fn unsent(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, dispatched: Dispatched::No, detail: detail.into() }
    }

    /// A failure after which nobody knows what the application saw.
    pub fn maybe_sent(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, dispatched: Dispatched::Maybe, detail: detail.into() }
    }

    /// The end of the way for what a route matches and has no backend for.
    pub fn unresolved(destination: &Destination) -> Self {
        let (service, port) = destination.service();
        let detail = format!("the route may not use {service}:{port}, or there is no such backend");
        Self::unsent(Kind::BackendUnresolved, detail)
    }

    /// A peer's refusal.
    pub fn refused(refused: &Refused) -> Self {
        let detail = format!("{}: {}", refused.code, refused.message);
        let kind = match refused.code {
            ErrorCode::Cancelled => Kind::Truncated, // see `Kind::at_source`
            code => Kind::of_code(code),
        };
        Self { kind, dispatched: refused.dispatched, detail: detail.into() }
    }

    /// The end of a stream, as the gateway of this role sees it.
    pub fn of_stream(error: &StreamError, role: Role) -> Self {
        let kind = match role {
            Role::Source => Kind::at_source(error.kind, error.code),
            Role::Destination => Kind::at_destination(error.kind, error.code),
        };
        Self { kind, dispatched: error.dispatched, detail: error.to_string().into() }
    }

    /// The destination's answer to the source.
    pub fn to_refused(&self) -> Refused {
        Refused::new(self.kind.to_code(), self.dispatched, &self.detail)
    }

    /// Whether another attempt may be made: it can help, and it cannot make anything happen twice
    /// (`repeatable`: an idempotent method whose body can be sent again).
    pub fn may_retry(&self, repeatable: bool) -> bool {
        self.kind.retry() != Retry::Never && (self.dispatched == Dispatched::No || repeatable)
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (dispatched: {})", self.detail, self.dispatched.as_str())
    }
}

impl std::error::Error for ProxyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_survives_the_tunnel_as_far_as_retries_go() {
        for kind in Kind::ALL {
            let told = Kind::of_code(kind.to_code());
            let fixed = match kind {
                Kind::NoRoute | Kind::BackendUnresolved => Kind::NotExported,
                Kind::BadRequest | Kind::HeadTooLarge => Kind::PeerProtocol,
                Kind::NoIdentity | Kind::TunnelDown | Kind::TunnelLost => Kind::Internal,
                same => same,
            };
            assert_eq!(told, fixed, "{kind:?}");
        }
    }

    #[test]
    fn every_code_of_the_tunnel_means_something() {
        for entry in wire::tunnel::ERROR_CODES {
            let kind = Kind::of_code(entry.code);
            assert!(Kind::ALL.contains(&kind), "{}", entry.name);
        }
        assert_eq!(Kind::of_code(ErrorCode::Unregistered(999)), Kind::Internal);
    }

    #[test]
    fn refusals_are_tried_again_as_the_registry_of_tunnel_v1_says() {
        use wire::tunnel::Retry as Registered;
        for code in [
            ErrorCode::Draining,
            ErrorCode::BadIdentity,
            ErrorCode::RefusedLoop,
            ErrorCode::TooManyHops,
            ErrorCode::NoSuchService,
            ErrorCode::NotExported,
            ErrorCode::DeniedByPolicy,
            ErrorCode::NoReadyEndpoint,
            ErrorCode::NotYet,
            ErrorCode::Overloaded,
            ErrorCode::UpstreamConnectFailed,
            ErrorCode::DeadlineExceeded,
            ErrorCode::StalledReader,
        ] {
            let expected = match code.entry().retry {
                Registered::Never => Retry::Never,
                Registered::Later => Retry::Later,
                Registered::Elsewhere | Registered::IfSafe => Retry::Elsewhere,
            };
            assert_eq!(Kind::of_code(code).retry(), expected, "{code}");
        }
    }

    #[test]
    fn a_peer_that_breaks_off_is_not_our_client_nor_the_application() {
        let (reset, lost) = (StreamErrorKind::Reset, StreamErrorKind::ConnectionLost);
        for (role, kind, code, expected) in [
            (Role::Source, reset, ErrorCode::Cancelled, Kind::Truncated),
            (Role::Source, StreamErrorKind::Local, ErrorCode::Cancelled, Kind::ClientGone),
            (Role::Destination, reset, ErrorCode::Cancelled, Kind::ClientGone),
            (Role::Source, lost, ErrorCode::NoError, Kind::TunnelLost),
            (Role::Destination, lost, ErrorCode::NoError, Kind::TunnelLost),
            (Role::Source, reset, ErrorCode::UpstreamReset, Kind::UpstreamReset),
        ] {
            let found = match role {
                Role::Source => Kind::at_source(kind, code),
                Role::Destination => Kind::at_destination(kind, code),
            };
            assert_eq!(found, expected, "{role:?} {kind:?} {code}");
        }
        let refused = Refused::new(ErrorCode::Cancelled, Dispatched::No, "OPEN came too late");
        assert_eq!(ProxyError::refused(&refused).kind, Kind::Truncated);
    }

    /// After a rotation of roots another connection may be trusted, by the younger certificates.
    #[test]
    fn a_connection_that_is_trusted_no_more_is_not_its_cluster() {
        let refused = ErrorCode::AdmissionRefused;
        let lost = Kind::at_source(StreamErrorKind::ConnectionLost, refused);
        assert_eq!((lost, lost.retry()), (Kind::TunnelLost, Retry::Elsewhere));
        let told = Kind::at_source(StreamErrorKind::Reset, refused);
        assert_eq!((told, told.retry()), (Kind::IdentityRefused, Retry::Never));
    }

    #[test]
    fn a_retry_needs_hope_and_safety() {
        let error = |kind, dispatched| ProxyError { kind, dispatched, detail: "".into() };
        for (kind, dispatched, repeatable, expected) in [
            (Kind::ConnectFailed, Dispatched::No, false, true),
            (Kind::ConnectFailed, Dispatched::Maybe, false, false),
            (Kind::UpstreamReset, Dispatched::Maybe, true, true),
            (Kind::UpstreamReset, Dispatched::Yes, false, false),
            (Kind::TunnelLost, Dispatched::Maybe, true, true),
            (Kind::NotYet, Dispatched::No, false, true),
            (Kind::Overloaded, Dispatched::No, false, true),
            (Kind::Denied, Dispatched::No, true, false),
            (Kind::Deadline, Dispatched::No, true, false),
            (Kind::ClientGone, Dispatched::No, true, false),
            (Kind::Loop, Dispatched::No, true, false),
        ] {
            let text = format!("{kind:?} {dispatched:?} {repeatable}");
            assert_eq!(error(kind, dispatched).may_retry(repeatable), expected, "{text}");
        }
    }

    #[test]
    fn a_refusal_round_trips_with_its_reason() {
        let error = ProxyError::unsent(Kind::Denied, "no AccessPolicy allows cluster \"east\"");
        let back = ProxyError::refused(&error.to_refused());
        assert_eq!((back.kind, back.dispatched), (Kind::Denied, Dispatched::No));
        assert!(back.to_string().contains("no AccessPolicy allows"), "{back}");
    }
}
