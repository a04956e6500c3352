//! Every bound of the federation node on sizes, counts and times.

use std::time::Duration;

/// Gateways that the node remembers, those that have gone included. Half of the connections: all may
/// come back before the ends of their old ones were noticed.
pub const GATEWAYS_MAX: usize = CONNECTIONS_MAX / 2;
/// Open connections on one socket; further callers wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 1024;
/// Of these, connections of Unix users who may not call; further ones are closed at once.
pub const STRANGERS_MAX: usize = 16;
/// Streams (calls) on one connection.
pub const CALLS_PER_CONNECTION_MAX: u32 = 64;
/// Objects served; what is beyond is left out with a diagnostic.
pub const RESOURCES_MAX: usize = wire::resource::limits::RESOURCES_PER_DELTA_MAX;
/// Encoded bytes of all objects: a snapshot is one message.
pub const SNAPSHOT_BYTES_MAX: usize = wire::resource::limits::FEDERATION_MESSAGE_BYTES_MAX / 2;
/// Revisions that the log remembers; a gateway further behind gets a snapshot.
pub const LOG_REVISIONS_MAX: usize = 4096;
/// Changed keys that the log remembers over all its revisions.
pub const LOG_KEYS_MAX: usize = 100_000;
/// Diagnostics kept of each source, and most that one answer to an operator has.
pub const DIAGNOSTICS_MAX: usize = 4096;
/// Clusters that are cordoned at the same time.
pub const CORDONS_MAX: usize = 1024;
/// Characters of why a cluster is cordoned.
pub const CORDON_REASON_CHARS_MAX: usize = 256;
/// Characters of why an SVID is revoked.
pub const DENIAL_REASON_CHARS_MAX: usize = 256;
/// How often it is looked for revoked SVIDs that have run out, and need not be published any more.
pub const DENIAL_CHECK_INTERVAL: Duration = Duration::from_secs(3600);
/// How often a connection at a TCP port is asked whether its SVID is revoked by now.
pub const PORT_TRUST_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of the configuration file.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// Addresses that a cluster advertises.
pub const ADVERTISE_MAX: usize = 64;
/// Unix users that may enrol gateways.
pub const ENROLMENT_UIDS_MAX: usize = 64;
/// ServiceAccounts that one list of the configuration may name.
pub const SERVICE_ACCOUNTS_MAX: usize = 64;
/// Ports of the pool for derived Services: a gateway listens on no more.
pub const IMPORT_PORTS_MAX: u16 = 1024;
/// Labels by which gateway pods are selected.
pub const SELECTOR_LABELS_MAX: usize = 16;
/// Handshakes under way at one TCP port; a further connection is closed at once.
pub const PORT_HANDSHAKES_MAX: usize = 256;
/// Of these, from one address.
pub const PORT_HANDSHAKES_PER_ADDRESS_MAX: usize = 64;
/// Connections at one TCP port whose callers have shown neither an SVID nor a good token yet.
pub const PORT_STRANGERS_MAX: usize = 64;
/// Of these, from one address.
pub const PORT_STRANGERS_PER_ADDRESS_MAX: usize = 8;
/// How long such a connection lives.
pub const PORT_STRANGER_TIME: Duration = Duration::from_secs(15);
/// Connections to `health.listen` at the same time; others are closed at once.
pub const HEALTH_CONNECTIONS_MAX: usize = 32;
/// How long a connection to `health.listen` may take to send a request's head, idle time included.
pub const HEALTH_HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a connection lives on after its gateway's SVID has expired; a gateway that goes on has
/// another one long before, and connects again with it.
pub const PORT_EXPIRED_SVID_AGE_MAX: Duration = Duration::from_secs(3600);
/// HTTP/2 PINGs at the TCP ports, so that a gateway that vanished gives its name back.
pub const PORT_PING_INTERVAL: Duration = Duration::from_secs(5);
/// Longest wait for such a PING's answer; then the connection is given up.
pub const PORT_PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a bearer token.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// TokenReviews under way; further ones wait.
pub const TOKEN_REVIEWS_MAX: usize = 16;
/// How long one may take, the wait for its turn included.
pub const TOKEN_REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an operator's token counts as good after a review.
pub const TOKEN_CACHE_TIME: Duration = Duration::from_secs(10);
/// Operators' tokens that are remembered for that time.
pub const TOKENS_CACHED_MAX: usize = 256;
/// `sun_path` on Linux has 108 bytes, one of them for the terminating zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A stream's first message is to come within this time.
pub const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a gateway waits for its name while another process has it: a gateway that was killed and
/// started again may be here before its old stream's end is.
pub const NAME_WAIT: Duration = Duration::from_secs(2);
/// Least time between two messages to one gateway about which gateways serve: while hundreds come,
/// each of them would be told of each, before any delta.
pub const SERVING_NEWS_PAUSE: Duration = Duration::from_millis(200);
/// What is open may end by itself for this long when the node stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after an accept that failed, for instance for want of file descriptors.
pub const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often the node looks whether its own SVID is to be renewed. Wall clocks jump, so that one
/// long sleep would not do.
pub const RENEWAL_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Shortest lifetime of SVIDs that can be configured: each is renewed at half of it, and X.509 counts
/// whole seconds.
pub const SVID_LIFETIME_S_MIN: u64 = 10;
/// When less of a certificate's life is left, in percent, it is told: at the last level as an error.
pub const LIFE_LEFT_PERCENT: [u64; 3] = [50, 20, 5];
/// Lifetime of SVIDs for gateways and for the node itself, where the configuration says nothing; more
/// cannot be configured.
pub const SVID_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// From so many clusters on, the store has 3 voters.
pub const CLUSTERS_FOR_THREE_VOTERS: usize = 3;
/// From so many clusters on, the store has 5 voters.
pub const CLUSTERS_FOR_FIVE_VOTERS: usize = 7;
/// Damaged stores that are kept beside the one in use; with another one the node does not start.
pub const STORES_KEPT_MAX: u32 = 4;
/// With fewer bytes free on the disk of its data the node warns; on a small disk, with less than a quarter.
pub const ROOM_LOW_BYTES: u64 = 512 * 1024 * 1024;
/// With fewer it calls it an error; on a small disk, with less than an eighth.
pub const ROOM_SHORT_BYTES: u64 = 128 * 1024 * 1024;
/// With fewer the node does not start, nor begin its store anew; on a small disk, with less than a
/// sixteenth.
pub const ROOM_NEEDED_BYTES: u64 = 16 * 1024 * 1024;
/// How often the node looks whether its store has failed, and whether the disk takes writes again.
pub const STORE_FAULT_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a node whose store has failed goes on at least, so that starts in vain are far apart.
pub const STORE_FAULT_PAUSE: Duration = Duration::from_secs(5);
/// Members whose addresses are kept beside the store, to find the others without it: the eldest.
pub const CONTACTS_MAX: usize = 32;
/// Clusters that an admin may name as standbys: they hold the log without voting.
pub const STANDBYS_MAX: usize = 4;
/// Failed join attempts of one source (an IPv4 address or a /64) before it has to wait.
pub const JOIN_FAILURES_MAX: u32 = 10;
/// Sources whose failures are remembered; the one with the fewest is forgotten first.
pub const JOIN_SOURCES_MAX: usize = 1024;
/// Reports of gateways about what peers said that wait to be looked at; further ones are dropped.
pub const HEARD_MAX: usize = 64;
/// Members that one round of a proposal asks.
pub const PROPOSE_TARGETS_MAX: usize = 8;
/// Members that the leader asks whether they are up.
pub const PROBES_MAX: usize = 12;
/// Bytes of records that one publication holds; the rest is in the next one.
pub const PUBLISH_BYTES_MAX: usize = 192 * 1024;
/// Parts of the snapshot that a joiner gets.
pub const JOIN_SNAPSHOT_EVENTS_MAX: usize = 4096;
/// Verified revocations in force that the log does not have yet.
pub const EARLY_REVOCATIONS_MAX: usize = 128;
/// Heads of other clusters that gateways are given to pass on.
pub const NEWS_HEADS_MAX: usize = 64;
/// Bytes of a joiner's message: a Member, and its first records.
pub const JOIN_MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// Calls of a joiner on one connection; each may hold one message of it in memory.
pub const JOIN_CALLS_PER_CONNECTION_MAX: u32 = 2;
/// Joins that wait for a person.
pub const PENDING_JOINS_MAX: usize = 32;

/// How long a source's failed join attempts count.
pub const JOIN_FAILURES_WINDOW: Duration = Duration::from_secs(60);

/// Bytes of one command in the store's log.
pub const STORE_COMMAND_BYTES_MAX: usize = 256 * 1024;
/// Bytes of entries in one append; one entry more than reaches it.
pub const STORE_APPEND_BYTES_MAX: usize = 256 * 1024;
/// Entries in one append.
pub const STORE_ENTRIES_PER_APPEND_MAX: u64 = 256;
/// Proposals that wait for the log at the same time; further ones wait for a place.
pub const STORE_PROPOSALS_MAX: usize = 256;
/// Voters and standbys together, those that are being replaced included.
pub const STORE_MEMBERS_MAX: usize = 32;
/// Bytes of a key of the store's machine.
pub const STORE_PAIR_KEY_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a value of the store's machine.
pub const STORE_PAIR_VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one part of a snapshot between nodes.
pub const STORE_SNAPSHOT_PART_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a whole snapshot.
pub const STORE_SNAPSHOT_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Entries after which the log's beginning may go.
pub const STORE_LOG_ENTRIES: u64 = 4096;
/// Of these, the newest that stay for members a little behind.
pub const STORE_LOG_ENTRIES_KEPT: u64 = 1024;
/// Applied commands that are remembered for watchers; one further behind begins with a snapshot.
pub const STORE_CHANGES_MAX: usize = 4096;
/// Their bytes.
pub const STORE_CHANGES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One part of a snapshot is to be taken within this time.
pub const STORE_SNAPSHOT_PART_TIMEOUT: Duration = Duration::from_secs(10);
/// A member that is to vote has this long to catch up.
pub const STORE_CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of one file of the audit record; the next entry begins a new one.
pub const AUDIT_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Files of the audit record, the current one included; the oldest goes when one more is begun.
pub const AUDIT_FILES_MAX: usize = 8;
/// Breaks of the audit record's chain that one reading names.
pub const AUDIT_BREAKS_MAX: usize = 64;
/// Calls that one answer about the audit record has.
pub const AUDIT_CALLS_LISTED_MAX: usize = 1000;
/// Unix users that one role's list may name.
pub const OPERATOR_UIDS_MAX: usize = 64;
/// Objects that `fedctl apply` keeps; their file is a manifest, with a manifest's limits.
pub const APPLIED_OBJECTS_MAX: usize = 1000;
/// Bytes of manifests in one answer to an operator; objects beyond are counted.
pub const OBJECTS_ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a change is tried before its outcome counts as unknown.
pub const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one member may take to answer a proposal.
pub const PROPOSE_CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// Pause between two rounds of asking who leads: the first one, doubled up to the longest.
pub const PROPOSE_PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest of these pauses.
pub const PROPOSE_PAUSE_MAX: Duration = Duration::from_millis(800);
/// How often the leader looks whether the right clusters vote.
pub const CONTROL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a member is looked for that can take over from one that leaves.
pub const HEIR_PATIENCE: Duration = Duration::from_secs(5);
/// How long a cluster that said that it leaves is kept out of the group.
pub const EXCLUSION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a change of the group may take.
pub const GROUP_CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause while another such change ends.
pub const GROUP_CHANGE_PAUSE: Duration = Duration::from_millis(50);
/// How long a member may take to show that it is up.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a cluster signs its Head anew.
pub const HEAD_INTERVAL: Duration = Duration::from_secs(30);
/// How long this node may take to hear of what it has just changed.
pub const APPLIED_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before a publication is tried again: the first one, doubled up to the longest.
pub const PUBLISH_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest of these pauses.
pub const PUBLISH_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Clusters that a node speaks with.
pub const TRANSPORT_PEERS_MAX: usize = 4096;
/// Peers that are shown an SVID of the next root at the same time, before it signs.
pub const TRIALS_MAX: usize = 16;
/// How long a prepared root is in the bundle, at least, before it signs for clusters that cannot be
/// asked whether they know it: 3 times what the bundle's refresh hint says (SPIFFE Bundle §4.1.2).
pub const ROOT_OVERLAP: Duration = Duration::from_secs(900);
/// How late a pod may see a changed ConfigMap; the kubelet looks once a minute.
pub const ROOT_SPREAD_IN_KUBERNETES: Duration = Duration::from_secs(120);
/// How long the SVID lives by which the next root is tried.
pub const TRIAL_SVID_LIFETIME: Duration = Duration::from_secs(120);
/// Addresses of one peer, or of one token, that are dialled at once.
pub const DIAL_ADDRESSES_MAX: usize = 8;
/// First pause after a store connection could not be dialled; it doubles up to the longest.
pub const DIAL_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two dials of one peer.
pub const DIAL_PAUSE_MAX: Duration = Duration::from_secs(3);
/// How long a store connection over QUIC has stood when the one over TCP that it replaces is closed: calls
/// that began on that have had their answers.
pub const FALLBACK_RETIRES_AFTER: Duration = Duration::from_secs(10);
/// How long a call may wait for a way to its peer.
pub const PATH_WAIT: Duration = Duration::from_secs(8);
/// How often a call that waits for a way looks whether a gateway holds a connection of its peer.
pub const DOOR_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait for a call's answer to begin, if the caller has set none.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a message on the Unix sockets between the node and its gateways.
pub const RELAY_TIMEOUT: Duration = Duration::from_secs(3);
/// Inner handshakes of members under way; further streams wait.
pub const HANDSHAKES_MAX: usize = 64;
/// Inner handshakes of joiners under way; further streams wait.
pub const JOIN_HANDSHAKES_MAX: usize = 32;
/// Streams of peers that wait to be served, of the store and of joining each.
pub const ARRIVALS_MAX: usize = 64;
/// HTTP/2 windows between nodes: a stream's.
pub const STORE_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2 windows between nodes: a connection's.
pub const STORE_CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// HTTP/2 PINGs between nodes, also while nothing is called.
pub const STORE_PING_INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for a PING's answer; then the stream is given up.
pub const STORE_PING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a node remembers a token that it issued, after its end.
pub const GRANT_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long the inviter may take to say what it thinks of a token.
pub const JOIN_CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the inviter may be silent while no person is waited for.
pub const JOIN_EVENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a joiner may leave a message unread.
pub const JOIN_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Life of a token when nothing else is said: 15 minutes.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How often a node looks whether it is in the group, and who else is.
pub const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
/// How long a member that has left is still spoken with, to be told that it has.
pub const LEFT_GRACE: Duration = Duration::from_secs(5);
/// A node of the group that knows of no leader for this long watches others too.
pub const LEADER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Longest drain before leaving.
pub const DRAIN_MAX: Duration = Duration::from_secs(3600);
/// How long leaving may take, without the drain.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a member may take to confirm a revocation.
pub const TELL_TIMEOUT: Duration = Duration::from_secs(3);

/// Connections to the bundle endpoint at the same time; others are closed at once.
pub const BUNDLE_CONNECTIONS_MAX: usize = 64;
/// Of these, from one address.
pub const BUNDLE_CONNECTIONS_PER_ADDRESS_MAX: usize = 8;
/// How long one may take, handshake, request and answer together.
pub const BUNDLE_SERVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's head at the bundle endpoint, and of an answer's at those that are polled.
pub const BUNDLE_HEAD_BYTES_MAX: usize = 16 * 1024;
/// How often the files of `bundleEndpoint.certificateFile` and `keyFile` are read again.
pub const BUNDLE_CERTIFICATE_INTERVAL: Duration = Duration::from_secs(30);
/// Bundle endpoints that are polled.
pub const BUNDLE_SOURCES_MAX: usize = 64;
/// Bytes of a polled trust domain's name: a file is called by it.
pub const BUNDLE_DOMAIN_BYTES_MAX: usize = 240;
/// Bytes of a polled bundle.
pub const BUNDLE_BODY_BYTES_MAX: usize = wire::bundle::BUNDLE_BYTES_MAX;
/// How long one poll may take, from the name's resolution to the last byte.
pub const BUNDLE_POLL_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause between two polls where the bundle has no hint (SPIFFE Federation §4.1) ...
pub const BUNDLE_POLL_INTERVAL: Duration = Duration::from_secs(300);
/// ... the shortest that a hint can ask for ...
pub const BUNDLE_POLL_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// ... and the longest.
pub const BUNDLE_POLL_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// First pause after a poll that failed, until one has succeeded since the start; it doubles up to the
/// interval.
pub const BUNDLE_RETRY_MIN: Duration = Duration::from_secs(5);

/// How long a call to the Kubernetes API server may take.
pub const KUBERNETES_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Writes to the API server that one writer has under way.
pub const KUBERNETES_WRITES_MAX: usize = 8;
/// Objects in one page of a list.
pub const KUBERNETES_LIST_PAGE: u32 = 500;
/// Changes are collected for this long before a writer looks at them.
pub const KUBERNETES_SETTLE: Duration = Duration::from_millis(200);
/// How often a writer asks the watches whether somebody changed what is its own.
pub const KUBERNETES_DRIFT_INTERVAL: Duration = Duration::from_secs(5);
/// How often a writer lists what is its own, whatever the watches say.
pub const KUBERNETES_RESYNC_INTERVAL: Duration = Duration::from_secs(60);
/// Pause before a writer tries again: the first one, doubled up to the longest.
pub const KUBERNETES_RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest of these pauses.
pub const KUBERNETES_RETRY_MAX: Duration = Duration::from_secs(60);
/// A Lease whose holder has not renewed it for so long is anybody's.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew it for so long stops writing.
pub const LEASE_RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed, and how often others look.
pub const LEASE_RETRY: Duration = Duration::from_secs(2);
/// How long giving it back may delay the end.
pub const LEASE_RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Nodes whose addresses are advertised for a NodePort or hostPort.
pub const NODE_ADDRESSES_MAX: usize = 8;
/// How long the node's start waits for the cluster's objects; without them it goes on.
pub const KUBERNETES_START_WAIT: Duration = Duration::from_secs(2);
/// How often the status of Fedgate's own kinds is held against what gateways and the store say.
pub const OWN_KINDS_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How often the file of `kubernetes.joinTokenFile` is looked at while the cluster is in no federation.
pub const JOIN_TOKEN_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of that file: a token and the white space around it.
pub const JOIN_TOKEN_FILE_BYTES_MAX: u64 = 16 * 1024;
/// Addresses in the status of one Gateway: what its CRD allows.
pub const GATEWAY_ADDRESSES_MAX: usize = 16;
/// Kubernetes Events about findings that are made at once; what is beyond is left out.
pub const EVENTS_AT_ONCE_MAX: u32 = 100;
/// One more may be made each time this has passed.
pub const EVENTS_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of an Event's note: the API server takes 1 KiB.
pub const EVENT_NOTE_BYTES_MAX: usize = 1000;

/// Gateway pods that a derived Service leads to: as many as Kubernetes puts into one EndpointSlice.
pub const IMPORT_GATEWAYS_MAX: usize = 100;
/// How long a port of the pool that was freed is not given out again.
pub const IMPORT_PORT_REST: Duration = Duration::from_secs(60);
/// From so many ServiceImports on, losing over half of them at once is held for a while ...
pub const IMPORTS_LOST_MIN: usize = 10;
/// ... namely for so long, unless they come back.
pub const IMPORTS_LOST_HOLD: Duration = Duration::from_secs(30);
/// Bytes of a condition's message; Kubernetes has room for 32 KiB.
pub const CONDITION_MESSAGE_MAX: usize = 4096;
