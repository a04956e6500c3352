//! The registry of error codes, and how a code travels in a reset.

use std::fmt;

use model::code::{self as fed, Code};

use super::varint::VARINT_MAX;

/// Whether trying again can help, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// No: the answer would be the same.
    Never,
    /// Yes, at the same destination after a short while.
    Later,
    /// Yes, at another endpoint, gateway or cluster, if nothing was dispatched.
    Elsewhere,
    /// Only if the request is safe to repeat: it may have reached the application.
    IfSafe,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    Nobody,
    /// The side that is told the code.
    Told,
    /// The side that tells the code.
    Teller,
    /// The program that made the request.
    Caller,
    /// The application that serves it.
    Application,
    /// Whoever configured the clusters.
    Operator,
    Network,
}

/// What the registry says of a code.
#[derive(Debug)]
pub struct ErrorEntry {
    pub code: ErrorCode,
    pub number: u64,
    pub name: &'static str,
    pub meaning: &'static str,
    pub retry: Retry,
    pub blame: Blame,
    /// The failure code that a person is shown, if this is one that a person can meet.
    pub fed: Option<Code>,
}

macro_rules! registry {
    ($($number:literal $variant:ident $name:literal $retry:ident $blame:ident $fed:expr,
        $meaning:literal;)*) => {
        /// Why a stream or connection ended. Numbers are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)*
            /// A number that this version does not know: treated as `internal`.
            Unregistered(u64),
        }

        /// Every registered code, in order of its number.
        pub static ERROR_CODES: &[ErrorEntry] = &[$(ErrorEntry {
            code: ErrorCode::$variant,
            number: $number,
            name: $name,
            meaning: $meaning,
            retry: Retry::$retry,
            blame: Blame::$blame,
            fed: $fed,
        }),*];

        impl ErrorCode {
            pub fn from_number(number: u64) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    _ => Self::Unregistered(number),
                }
            }

            pub fn number(self) -> u64 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Unregistered(number) => number,
                }
            }
        }
    };
}

registry! {
    0x00 NoError "no_error" Never Nobody None,
        "Nothing is wrong: the sender needs no more, or closes an idle connection.";
    0x01 Internal "internal" Elsewhere Teller None,
        "The sender failed in a way that no other code describes.";
    0x02 Cancelled "cancelled" Never Caller None,
        "The caller went away.";
    0x03 Draining "draining" Elsewhere Nobody Some(fed::DRAINING),
        "The gateway is shutting down and takes no new streams.";
    0x10 UnsupportedVersion "unsupported_version" Never Operator Some(fed::PEER_VERSION),
        "The HELLO version ranges do not overlap.";
    0x11 AdmissionRefused "admission_refused" Never Operator Some(fed::PEER_IDENTITY_REFUSED),
        "The peer's certificate is not one that may use this ALPN.";
    0x12 BadIdentity "bad_identity" Never Told Some(fed::PEER_IDENTITY_REFUSED),
        "HELLO or OPEN claims an identity that the peer's certificate does not cover.";
    0x13 HelloTimeout "hello_timeout" Elsewhere Told Some(fed::TUNNEL_DOWN),
        "No HELLO came in time.";
    0x14 DuplicateConnection "duplicate_connection" Never Nobody None,
        "An older connection of the same place exists; this younger one closes.";
    0x15 PeerSilent "peer_silent" Elsewhere Network Some(fed::TUNNEL_SILENT),
        "No authenticated packet came for too long, and the connection was declared dead.";
    0x20 MalformedFrame "malformed_frame" Never Told Some(fed::PEER_PROTOCOL_ERROR),
        "A frame's payload breaks its format.";
    0x21 FrameTooLarge "frame_too_large" Never Told Some(fed::PEER_PROTOCOL_ERROR),
        "A frame is longer than its limit.";
    0x22 FrameOutOfOrder "frame_out_of_order" Never Told Some(fed::PEER_PROTOCOL_ERROR),
        "A frame came where its stream does not allow it.";
    0x23 UnknownOddFrame "unknown_odd_frame" Never Told Some(fed::PEER_PROTOCOL_ERROR),
        "A frame of an odd type came that the receiver does not know.";
    0x24 Truncated "truncated" IfSafe Teller Some(fed::TRUNCATED),
        "A stream ended without END, or its source broke off.";
    0x30 RefusedLoop "refused_loop" Never Operator Some(fed::LOOP_REFUSED),
        "The destination's own cluster id is already in OPEN.via.";
    0x31 TooManyHops "too_many_hops" Never Operator Some(fed::LOOP_REFUSED),
        "OPEN.via has more clusters than allowed.";
    0x32 NoSuchService "no_such_service" Elsewhere Operator Some(fed::SERVICE_NOT_FOUND),
        "The destination has no service of that name and port.";
    0x33 NotExported "not_exported" Elsewhere Operator Some(fed::SERVICE_NOT_FOUND),
        "The service exists at the destination but is not exported.";
    0x34 DeniedByPolicy "denied_by_policy" Never Operator Some(fed::ACCESS_DENIED),
        "No AccessPolicy of the destination allows the caller.";
    0x35 NoReadyEndpoint "no_ready_endpoint" Elsewhere Application Some(fed::NO_ENDPOINT),
        "The service has no ready endpoint at the destination.";
    0x36 NotYet "not_yet" Later Nobody Some(fed::NOT_YET),
        "The destination has not yet seen the route revision that OPEN names.";
    0x37 Overloaded "overloaded" Elsewhere Nobody Some(fed::TUNNEL_OVERLOADED),
        "A limit on streams or exchanges was reached.";
    0x38 UnsupportedKind "unsupported_kind" Elsewhere Told None,
        "The destination does not serve this kind of stream.";
    0x40 UpstreamConnectFailed "upstream_connect_failed" Elsewhere Application
        Some(fed::UPSTREAM_CONNECT), "No endpoint of the service accepted a connection.";
    0x41 UpstreamReset "upstream_reset" IfSafe Application Some(fed::UPSTREAM_RESET),
        "The application broke the exchange off.";
    0x42 DeadlineExceeded "deadline_exceeded" Never Application Some(fed::DEADLINE),
        "OPEN.deadline_ms ran out.";
    0x43 StalledReader "stalled_reader" Never Caller Some(fed::STALLED_READER),
        "The stream's reader held the connection's window for too long without reading.";
    0x44 ResumeTimeout "resume_timeout" IfSafe Network Some(fed::TUNNEL_DOWN),
        "The RESUME stream that MOVED announced did not come in time.";
}

impl ErrorCode {
    /// The registry's row; of `internal` for a number that is not registered.
    pub fn entry(self) -> &'static ErrorEntry {
        let internal = &ERROR_CODES[1];
        ERROR_CODES.iter().find(|entry| entry.code == self).unwrap_or(internal)
    }

    /// Whether the source may try again, given what the peer said of the dispatch. Where the
    /// registry says [`Retry::IfSafe`], the answer needs `safe`: the route calls it repeatable.
    pub fn may_retry(self, dispatched: Dispatched, safe: bool) -> bool {
        match self.entry().retry {
            Retry::Never => false,
            Retry::Later | Retry::Elsewhere | Retry::IfSafe => dispatched == Dispatched::No || safe,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unregistered(number) => write!(f, "unregistered code {number:#x}"),
            known => f.write_str(known.entry().name),
        }
    }
}

/// Whether any byte of the exchange may have reached the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dispatched {
    No,
    Maybe,
    Yes,
}

impl Dispatched {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Maybe => "maybe",
            Self::Yes => "yes",
        }
    }

    fn bits(self) -> u64 {
        match self {
            Self::No => 1,
            Self::Maybe => 2,
            Self::Yes => 3,
        }
    }
}

/// What RESET_STREAM and STOP_SENDING say: one QUIC application error code holding both parts,
/// `code << 2 | dispatched` with dispatched 1 no, 2 maybe, 3 yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamReset {
    pub code: ErrorCode,
    pub dispatched: Dispatched,
}

impl StreamReset {
    pub fn new(code: ErrorCode, dispatched: Dispatched) -> Self {
        Self { code, dispatched }
    }

    /// The QUIC application error code. A code too large to be packed is sent as `internal`.
    pub fn pack(self) -> u64 {
        let number = self.code.number();
        let number = if number <= VARINT_MAX >> 2 { number } else { ErrorCode::Internal.number() };
        number << 2 | self.dispatched.bits()
    }

    /// Reads what a peer sent. Nothing is refused: dispatched 0, which a QUIC library may send by
    /// itself, means `maybe`, the only safe reading.
    pub fn unpack(packed: u64) -> Self {
        let dispatched = match packed & 3 {
            1 => Dispatched::No,
            3 => Dispatched::Yes,
            _ => Dispatched::Maybe,
        };
        Self { code: ErrorCode::from_number(packed >> 2), dispatched }
    }
}

impl fmt::Display for StreamReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, dispatched: {}", self.code, self.dispatched.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_names_are_unique_and_all_round_trip() {
        for pair in ERROR_CODES.windows(2) {
            assert!(pair[0].number < pair[1].number, "{}", pair[1].name);
        }
        for (index, entry) in ERROR_CODES.iter().enumerate() {
            assert_eq!(ErrorCode::from_number(entry.number), entry.code);
            assert_eq!(entry.code.number(), entry.number);
            assert_eq!(entry.code.to_string(), entry.name);
            assert!(entry.meaning.ends_with('.'), "{}", entry.name);
            assert!(ERROR_CODES[..index].iter().all(|other| other.name != entry.name));
        }
        assert_eq!(ErrorCode::Unregistered(0x7777).entry().code, ErrorCode::Internal);
        assert_eq!(ErrorCode::Unregistered(0x7777).to_string(), "unregistered code 0x7777");
    }

    #[test]
    fn resets_pack_the_code_and_the_dispatch() {
        for entry in ERROR_CODES {
            for dispatched in [Dispatched::No, Dispatched::Maybe, Dispatched::Yes] {
                let reset = StreamReset::new(entry.code, dispatched);
                assert_eq!(StreamReset::unpack(reset.pack()), reset);
            }
        }
        let refused = StreamReset::new(ErrorCode::Overloaded, Dispatched::No);
        assert_eq!(refused.pack(), 0x37 << 2 | 1);
        assert_eq!(refused.to_string(), "overloaded, dispatched: no");
        let bare = StreamReset::unpack(0);
        assert_eq!(bare, StreamReset::new(ErrorCode::NoError, Dispatched::Maybe));
        let huge = StreamReset::new(ErrorCode::Unregistered(u64::MAX), Dispatched::Yes);
        assert_eq!(StreamReset::unpack(huge.pack()).code, ErrorCode::Internal);
    }

    #[test]
    fn a_retry_needs_no_dispatch_or_a_safe_request() {
        assert!(ErrorCode::Overloaded.may_retry(Dispatched::No, false));
        assert!(!ErrorCode::Overloaded.may_retry(Dispatched::Maybe, false));
        assert!(ErrorCode::UpstreamReset.may_retry(Dispatched::Maybe, true));
        assert!(!ErrorCode::UpstreamReset.may_retry(Dispatched::Yes, false));
        assert!(!ErrorCode::DeniedByPolicy.may_retry(Dispatched::No, true));
        assert!(ErrorCode::Unregistered(99).may_retry(Dispatched::No, false));
    }
}
