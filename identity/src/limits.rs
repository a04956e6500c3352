//! Every bound that this crate puts on sizes, counts and lifetimes.

use std::time::Duration;

/// Certificates in a peer's chain, leaf included; SPIRE's nested chains have four.
pub const CHAIN_CERTIFICATES_MAX: usize = 8;
/// One certificate of a chain or bundle; an SVID of ours has about 500 bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// A certificate signing request; ours have about 300 bytes.
pub const CSR_BYTES_MAX: usize = 8 * 1024;
/// Authorities in one bundle: overlapping roots while one is rotated, with much to spare.
pub const BUNDLE_AUTHORITIES_MAX: usize = 32;
/// Trust domains whose sequence is remembered, those no longer in use included.
pub const TRUST_DOMAINS_MAX: usize = 4096;
/// Files of this crate (`svid.pem`, `ca.key`, `ca.pem`, `sequence`) are read up to this size.
pub const IDENTITY_FILE_BYTES_MAX: u64 = 256 * 1024;
/// Refused peer certificates that [`crate::IdentityCell::refusals`] remembers.
pub const REFUSALS_MAX: usize = 32;
/// Characters of a peer's certificate that an error message quotes.
pub const QUOTED_CHARS_MAX: usize = 300;

/// A clock may be this far behind ours and still accept a certificate issued just now.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// The CA issues for no longer than this: an SVID cannot be recalled, it can only run out.
pub const SVID_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// The CA issues for no shorter than this; X.509 counts whole seconds.
pub const SVID_LIFETIME_MIN: Duration = Duration::from_secs(1);
/// An SVID is renewed at this age, or at half its lifetime when that comes first.
pub const SVID_RENEWAL_AGE: Duration = Duration::from_secs(3600);
/// An SVID whose renewal is called for before its time is at least so old.
pub const SVID_RENEWAL_PAUSE: Duration = Duration::from_secs(2);
/// Lifetime of the cluster's root. Its bundle travels to other clusters by hand (a ClusterPeer), so
/// its end would be an outage that nobody schedules, and a shorter life would protect from nothing:
/// whoever holds the key can sign today. It gets short when roots rotate without being asked to.
pub const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
