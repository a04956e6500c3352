//! Keys of records, `/v1/<cluster>/<kind>/<namespace>/<name>`, as bytes.

use std::fmt;

use model::{ClusterId, Namespace, ObjectName, ResourceKey, ResourceKind};

use super::limits::KEY_BYTES_MAX;
use crate::error::{At, WireError};

/// What every key begins with.
const PREFIX: &[u8] = b"/v1/";
const CLUSTER_BYTES: usize = 16;

/// Names a record: its owner, and the object as its owner names it.
///
/// Bytes: `/v1/`, then four segments, each a length of one byte and that many bytes: the cluster
/// id (16), the kind (2, big endian), the namespace (none for cluster-wide kinds), the name. They
/// compare as their bytes do.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StoreKey {
    pub cluster: ClusterId,
    /// A number of [`ResourceKind`], or of a kind that is newer than this build.
    pub kind: u16,
    pub namespace: Option<Namespace>,
    pub name: ObjectName,
}

impl StoreKey {
    pub fn of(cluster: ClusterId, key: &ResourceKey) -> Self {
        let (namespace, name) = (key.namespace.clone(), key.name.clone());
        Self { cluster, kind: key.kind.number(), namespace, name }
    }

    /// The object's key; `None` when its kind is newer than this build.
    pub fn resource_key(&self) -> Option<ResourceKey> {
        let kind = ResourceKind::from_number(self.kind)?;
        Some(ResourceKey { kind, namespace: self.namespace.clone(), name: self.name.clone() })
    }

    /// Kinds that never enter the store: they are local, or change too often for a log.
    pub fn is_storable(&self) -> bool {
        let local = [
            ResourceKind::Service,
            ResourceKind::EndpointSlice,
            ResourceKind::ServiceImport,
            ResourceKind::Gateway,
        ];
        !local.iter().any(|kind| kind.number() == self.kind)
    }

    /// What all keys of a cluster begin with, and no other cluster's.
    pub fn cluster_prefix(cluster: &ClusterId) -> Vec<u8> {
        let mut bytes = PREFIX.to_vec();
        push_segment(&mut bytes, cluster.as_bytes());
        bytes
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Self::cluster_prefix(&self.cluster);
        push_segment(&mut bytes, &self.kind.to_be_bytes());
        push_segment(&mut bytes, self.namespace_str().as_bytes());
        push_segment(&mut bytes, self.name.as_str().as_bytes());
        bytes
    }

    /// The namespace, or nothing for cluster-wide kinds: as it stands in the key.
    pub fn namespace_str(&self) -> &str {
        self.namespace.as_ref().map_or("", Namespace::as_str)
    }

    /// What decides between two keys, most important first.
    fn in_order(&self) -> (&ClusterId, u16, usize, &str, usize, &str) {
        let (namespace, name) = (self.namespace_str(), self.name.as_str());
        (&self.cluster, self.kind, namespace.len(), namespace, name.len(), name)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        Self::decode_at(At::message("key"), bytes)
    }

    pub(super) fn decode_at(at: At<'_>, bytes: &[u8]) -> Result<Self, WireError> {
        at.check_bytes(bytes.len(), KEY_BYTES_MAX)?;
        let mut reader = Segments { at, whole: bytes, rest: bytes };
        match bytes.strip_prefix(PREFIX) {
            Some(rest) => reader.rest = rest,
            None => return Err(reader.refuse("a key begins with \"/v1/\"")),
        }
        let cluster: [u8; CLUSTER_BYTES] = reader.fixed("the cluster id has 16 bytes")?;
        let kind = u16::from_be_bytes(reader.fixed("the kind has 2 bytes")?);
        let namespace = reader.text()?;
        let name = reader.text()?;
        if !reader.rest.is_empty() {
            return Err(reader.refuse("a key ends after its name"));
        }
        if kind == 0 {
            return Err(reader.refuse("kinds are numbers from 1 to 65535"));
        }
        let namespace = match namespace {
            "" => None,
            text => Some(Namespace::parse(text).map_err(|error| reader.refuse(error))?),
        };
        let name = ObjectName::parse(name).map_err(|error| reader.refuse(error))?;
        let key = Self { cluster: ClusterId::from_bytes(cluster), kind, namespace, name };
        match ResourceKind::from_number(kind) {
            Some(kind) if kind.is_namespaced() != key.namespace.is_some() => {
                let has = if kind.is_namespaced() { "has a" } else { "has no" };
                Err(reader.refuse(format!("a {} {has} namespace", kind.as_str())))
            }
            _ => Ok(key),
        }
    }
}

fn push_segment(bytes: &mut Vec<u8>, segment: &[u8]) {
    let length = u8::try_from(segment.len()).expect("names have at most 253 bytes");
    bytes.push(length);
    bytes.extend_from_slice(segment);
}

/// What is left of a key that is being read.
struct Segments<'a> {
    at: At<'a>,
    whole: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    fn next(&mut self) -> Result<&'a [u8], WireError> {
        let cut = "it ends within a segment: each is a length byte and that many bytes";
        let Some((&length, rest)) = self.rest.split_first() else { return Err(self.refuse(cut)) };
        let Some((segment, rest)) = rest.split_at_checked(length.into()) else {
            return Err(self.refuse(cut));
        };
        self.rest = rest;
        Ok(segment)
    }

    fn fixed<const N: usize>(&mut self, rule: &str) -> Result<[u8; N], WireError> {
        let segment = self.next()?;
        segment.try_into().map_err(|_| self.refuse(rule))
    }

    fn text(&mut self) -> Result<&'a str, WireError> {
        let segment = self.next()?;
        std::str::from_utf8(segment).map_err(|_| self.refuse("names are ASCII"))
    }

    fn refuse(&self, problem: impl fmt::Display) -> WireError {
        let shown = self.whole.escape_ascii().to_string();
        self.at.refuse(format_args!("{shown}"), problem)
    }
}

impl PartialOrd for StoreKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// As the bytes compare: a shorter segment comes first.
impl Ord for StoreKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.in_order().cmp(&other.in_order())
    }
}

/// For people: `/v1/<cluster>/ServiceExport/shop/api`.
impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/v1/{}/", self.cluster)?;
        match ResourceKind::from_number(self.kind) {
            Some(kind) => f.write_str(kind.as_str())?,
            None => write!(f, "{}", self.kind)?,
        }
        write!(f, "/{}/{}", self.namespace_str(), self.name)
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
