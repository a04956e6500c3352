//! Every limit of the resource stream and of enrolment. What is beyond one is refused, not cut.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Longest message from the node to a gateway: a snapshot is one message, so that it is atomic.
pub const FEDERATION_MESSAGE_BYTES_MAX: usize = 64 * MIB;
/// Longest message from a gateway to the node.
pub const GATEWAY_MESSAGE_BYTES_MAX: usize = 4 * MIB;
/// Longest enrolment message, either way.
pub const ENROL_MESSAGE_BYTES_MAX: usize = 256 * KIB;
/// Longest encoded object.
pub const RESOURCE_BYTES_MAX: usize = MIB;
/// Most objects in one delta.
pub const RESOURCES_PER_DELTA_MAX: usize = 200_000;
/// Most entries of any one list inside an object.
pub const LIST_ENTRIES_MAX: usize = 4096;
/// Longest path prefix of an HTTPRoute.
pub const PATH_PREFIX_BYTES_MAX: usize = 1024;
/// Longest name of a port (Kubernetes: an IANA service name or RFC 1123 label).
pub const PORT_NAME_BYTES_MAX: usize = 63;
/// Longest certificate, DER.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * KIB;
/// Most certificates in a chain or a bundle.
pub const CERTIFICATES_MAX: usize = 32;
/// Longest certificate signing request, DER.
pub const CSR_BYTES_MAX: usize = 8 * KIB;
/// Most diagnostics in one Ack; a gateway that has more sends the first ones.
pub const DIAGNOSTICS_MAX: usize = 1024;
/// Longest text of a diagnostic's or error's field.
pub const TEXT_BYTES_MAX: usize = 4 * KIB;
/// Most links in a report: 32 workers, two classes, 64 peers with a few gateways each, and some.
pub const LINKS_MAX: usize = 8192;
/// Most listeners in a report.
pub const LISTENERS_MAX: usize = 1024;
/// Most service ports in a report.
pub const SERVICES_MAX: usize = 16_384;
/// Most counters in a report.
pub const COUNTERS_MAX: usize = 256;
/// Longest name of a counter.
pub const COUNTER_NAME_BYTES_MAX: usize = 128;
/// Longest path of a Unix socket: `sun_path` has 108 bytes, one of them for the terminating zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Most clusters whose store connections one gateway holds.
pub const STORE_CONNECTIONS_MAX: usize = 1024;
/// Most clusters of which a report says how many exchanges are in progress.
pub const EXCHANGES_CLUSTERS_MAX: usize = 1024;
/// Most signed Heads in one message, either way.
pub const HEADS_MAX: usize = 4096;
/// Most signed revocations in one message, either way.
pub const REVOCATIONS_MAX: usize = 128;
/// Most gateways of the own cluster that a node names.
pub const SERVING_GATEWAYS_MAX: usize = 1024;
/// Most SVIDs that a cluster denies at the same time. With IDs of full length they take half of a record.
pub const REVOKED_SVIDS_MAX: usize = 64;
/// Longest SPIFFE ID of one; a gateway's or node's has no more.
pub const REVOKED_SVID_ID_BYTES_MAX: usize = 537;
/// Most revoked trust domains.
pub const REVOKED_TRUST_DOMAINS_MAX: usize = 4096;
/// Most probes of one ping on each link.
pub const PING_PROBES_MAX: u32 = 100;
/// Time between two probes of a ping.
pub const PING_INTERVAL_MS: u32 = 200;
/// A probe that is not answered for so long is lost.
pub const PING_TIMEOUT_MS: u32 = 3_000;
/// How long a node waits for a gateway's answer beyond what the probes take.
pub const PING_GRACE_MS: u32 = 2_000;
/// Pings that one gateway has under way; more are refused.
pub const PINGS_MAX: usize = 4;
