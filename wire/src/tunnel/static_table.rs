//! The static table of the field block: common field names, and common fields with their values.
//! Both lists are fixed for major version 1; the document prints them.

use http::{HeaderName, HeaderValue};

/// Representation byte of a field whose name is spelt out.
pub(crate) const LITERAL: u8 = 0;
/// Representation byte of the first name of [`NAMES`].
pub(crate) const FIRST_NAME: u8 = 1;
/// Representation byte of the first field of [`FIELDS`].
pub(crate) const FIRST_FIELD: u8 = 128;

/// Fields that belong to one connection (RFC 9110 §7.6.1) or that the head holds elsewhere: no
/// block contains them.
const FORBIDDEN: [&str; 7] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

macro_rules! names {
    ($($name:literal)*) => {
        /// Representation byte 1 is the first.
        pub static NAMES: &[&str] = &[$($name),*];
        static HEADER_NAMES: [HeaderName; NAMES.len()] = [$(HeaderName::from_static($name)),*];
    };
}

macro_rules! fields {
    ($($name:literal $value:literal)*) => {
        /// Representation byte 128 is the first. Sorted by name.
        pub static FIELDS: &[(&str, &str)] = &[$(($name, $value)),*];
        static HEADERS: [(HeaderName, HeaderValue); FIELDS.len()] =
            [$((HeaderName::from_static($name), HeaderValue::from_static($value))),*];
    };
}

names! {
    "accept" "accept-charset" "accept-encoding" "accept-language" "accept-ranges"
    "access-control-allow-credentials" "access-control-allow-headers"
    "access-control-allow-methods" "access-control-allow-origin" "access-control-expose-headers"
    "access-control-max-age" "access-control-request-headers" "access-control-request-method"
    "age" "allow" "alt-svc" "authorization" "b3" "baggage" "cache-control" "content-disposition"
    "content-encoding" "content-language" "content-length" "content-location" "content-range"
    "content-security-policy" "content-type" "cookie" "date" "dnt" "etag" "expect" "expires"
    "forwarded" "from" "grpc-accept-encoding" "grpc-encoding" "grpc-message" "grpc-status"
    "grpc-status-details-bin" "grpc-timeout" "idempotency-key" "if-match" "if-modified-since"
    "if-none-match" "if-range" "if-unmodified-since" "last-modified" "link" "location"
    "max-forwards" "origin" "permissions-policy" "pragma" "priority" "proxy-authenticate"
    "proxy-authorization" "range" "referer" "referrer-policy" "retry-after" "sec-ch-ua"
    "sec-ch-ua-mobile" "sec-ch-ua-platform" "sec-fetch-dest" "sec-fetch-mode" "sec-fetch-site"
    "sec-fetch-user" "sec-websocket-accept" "sec-websocket-extensions" "sec-websocket-protocol"
    "sec-websocket-version" "server" "server-timing" "set-cookie" "strict-transport-security" "te"
    "timing-allow-origin" "traceparent" "tracestate" "trailer" "upgrade-insecure-requests"
    "user-agent" "vary" "via" "warning" "www-authenticate" "x-api-key" "x-b3-parentspanid"
    "x-b3-sampled" "x-b3-spanid" "x-b3-traceid" "x-cache" "x-content-type-options"
    "x-correlation-id" "x-forwarded-for" "x-forwarded-host" "x-forwarded-port"
    "x-forwarded-proto" "x-frame-options" "x-powered-by" "x-real-ip" "x-request-id"
    "x-requested-with" "x-xss-protection"
}

fields! {
    "accept" "*/*"
    "accept" "application/json"
    "accept-encoding" "gzip"
    "accept-encoding" "gzip, deflate"
    "accept-encoding" "gzip, deflate, br"
    "accept-encoding" "gzip, deflate, br, zstd"
    "accept-encoding" "identity"
    "accept-ranges" "bytes"
    "access-control-allow-credentials" "true"
    "access-control-allow-origin" "*"
    "cache-control" "max-age=0"
    "cache-control" "no-cache"
    "cache-control" "no-store"
    "cache-control" "private"
    "content-encoding" "br"
    "content-encoding" "gzip"
    "content-encoding" "zstd"
    "content-length" "0"
    "content-type" "application/grpc"
    "content-type" "application/grpc+proto"
    "content-type" "application/javascript"
    "content-type" "application/json"
    "content-type" "application/json; charset=utf-8"
    "content-type" "application/octet-stream"
    "content-type" "application/x-www-form-urlencoded"
    "content-type" "image/jpeg"
    "content-type" "image/png"
    "content-type" "image/svg+xml"
    "content-type" "image/webp"
    "content-type" "text/css"
    "content-type" "text/event-stream"
    "content-type" "text/html"
    "content-type" "text/html; charset=UTF-8"
    "content-type" "text/html; charset=utf-8"
    "content-type" "text/javascript"
    "content-type" "text/plain"
    "content-type" "text/plain; charset=utf-8"
    "expect" "100-continue"
    "grpc-accept-encoding" "gzip"
    "grpc-accept-encoding" "identity"
    "grpc-accept-encoding" "identity,deflate,gzip"
    "grpc-encoding" "gzip"
    "grpc-encoding" "identity"
    "grpc-status" "0"
    "pragma" "no-cache"
    "sec-fetch-dest" "document"
    "sec-fetch-dest" "empty"
    "sec-fetch-mode" "cors"
    "sec-fetch-mode" "navigate"
    "sec-fetch-site" "cross-site"
    "sec-fetch-site" "same-origin"
    "sec-fetch-user" "?1"
    "sec-websocket-version" "13"
    "te" "trailers"
    "upgrade-insecure-requests" "1"
    "vary" "Accept-Encoding"
    "vary" "Origin"
    "x-content-type-options" "nosniff"
    "x-forwarded-proto" "http"
    "x-forwarded-proto" "https"
    "x-frame-options" "DENY"
    "x-frame-options" "SAMEORIGIN"
    "x-xss-protection" "0"
}

/// What the table knows of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameEntry {
    Unknown,
    Forbidden,
    /// An index into [`NAMES`].
    Known(u8),
}

/// Looks a lower-case name up, in a few nanoseconds: the slot table was computed at build time.
pub(crate) fn find_name(name: &str) -> NameEntry {
    let mut slot = hash(name.as_bytes());
    loop {
        match SLOTS[slot] {
            EMPTY => return NameEntry::Unknown,
            index if (index as usize) < NAMES.len() => {
                if NAMES[index as usize] == name {
                    return NameEntry::Known(index);
                }
            }
            index => {
                if FORBIDDEN[index as usize - NAMES.len()] == name {
                    return NameEntry::Forbidden;
                }
            }
        }
        slot = (slot + 1) % SLOT_COUNT;
    }
}

/// Representation byte of the field with exactly this value, if the table has it.
pub(crate) fn find_field(name_index: u8, value: &[u8]) -> Option<u8> {
    let (first, end) = FIELD_RANGES[usize::from(name_index)];
    let range = &FIELDS[usize::from(first)..usize::from(end)];
    let offset = range.iter().position(|(_, known)| known.as_bytes() == value)?;
    Some(FIRST_FIELD + first + offset as u8)
}

/// The name behind a representation byte from 1 to 127.
pub(crate) fn name_at(representation: u8) -> Option<&'static HeaderName> {
    HEADER_NAMES.get(usize::from(representation.checked_sub(FIRST_NAME)?))
}

/// The field behind a representation byte from 128.
pub(crate) fn field_at(representation: u8) -> Option<&'static (HeaderName, HeaderValue)> {
    HEADERS.get(usize::from(representation.checked_sub(FIRST_FIELD)?))
}

const SLOT_COUNT: usize = 512;
const EMPTY: u8 = u8::MAX;
static SLOTS: [u8; SLOT_COUNT] = slots();

/// First and last character, the middle one and the length tell these names apart well enough.
const fn hash(name: &[u8]) -> usize {
    if name.is_empty() {
        return 0;
    }
    let (first, last) = (name[0] as usize, name[name.len() - 1] as usize);
    let middle = name[name.len() / 2] as usize;
    (first * 7 + last * 31 + middle * 131 + name.len() * 61) % SLOT_COUNT
}

const fn slots() -> [u8; SLOT_COUNT] {
    let mut slots = [EMPTY; SLOT_COUNT];
    let mut index = 0;
    while index < NAMES.len() + FORBIDDEN.len() {
        let name = if index < NAMES.len() { NAMES[index] } else { FORBIDDEN[index - NAMES.len()] };
        let mut slot = hash(name.as_bytes());
        while slots[slot] != EMPTY {
            slot = (slot + 1) % SLOT_COUNT;
        }
        slots[slot] = index as u8;
        index += 1;
    }
    slots
}

/// For each name, where its fields begin and end in [`FIELDS`].
static FIELD_RANGES: [(u8, u8); NAMES.len()] = field_ranges();

const fn field_ranges() -> [(u8, u8); NAMES.len()] {
    let mut ranges = [(0, 0); NAMES.len()];
    let mut name = 0;
    while name < NAMES.len() {
        let mut field = 0;
        while field < FIELDS.len() {
            if equal(FIELDS[field].0.as_bytes(), NAMES[name].as_bytes()) {
                if ranges[name].1 == 0 {
                    ranges[name].0 = field as u8;
                }
                ranges[name].1 = field as u8 + 1;
            }
            field += 1;
        }
        name += 1;
    }
    ranges
}

const fn equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_one_byte_and_is_sorted() {
        assert!(NAMES.len() <= usize::from(FIRST_FIELD - FIRST_NAME));
        assert!(FIELDS.len() <= 127, "255 stays free");
        assert!(NAMES.is_sorted_by(|a, b| a < b));
        assert!(FIELDS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn every_entry_is_found_again() {
        for (index, name) in NAMES.iter().enumerate() {
            assert_eq!(find_name(name), NameEntry::Known(index as u8), "{name}");
            assert_eq!(name_at(index as u8 + FIRST_NAME).unwrap().as_str(), *name);
        }
        for (index, (name, value)) in FIELDS.iter().enumerate() {
            let NameEntry::Known(known) = find_name(name) else {
                panic!("{name} has no name entry")
            };
            let representation = find_field(known, value.as_bytes()).unwrap();
            assert_eq!(representation, FIRST_FIELD + index as u8);
            assert_eq!(field_at(representation).unwrap().1.as_bytes(), value.as_bytes());
        }
        for name in FORBIDDEN {
            assert_eq!(find_name(name), NameEntry::Forbidden);
        }
        for name in ["", "x", "accep", "acceptt", "x-fedgate"] {
            assert_eq!(find_name(name), NameEntry::Unknown);
        }
        assert_eq!(find_field(0, b"text/*"), None);
        assert_eq!((name_at(0), name_at(127)), (None, None));
        assert!(field_at(127).is_none() && field_at(255).is_none());
    }

    #[test]
    fn lookups_probe_few_slots() {
        let probes = |name: &str| {
            let mut slot = hash(name.as_bytes());
            let mut count = 1;
            while SLOTS[slot] != EMPTY
                && NAMES.get(usize::from(SLOTS[slot])).is_none_or(|known| *known != name)
            {
                slot = (slot + 1) % SLOT_COUNT;
                count += 1;
            }
            count
        };
        let worst = NAMES.iter().map(|name| probes(name)).max().unwrap();
        assert!(worst <= 8, "{worst} probes: change the hash");
    }
}
