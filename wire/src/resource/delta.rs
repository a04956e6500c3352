//! The stream's own messages: Subscribe, Delta, Ack, and the keys of objects.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::{
    ClusterName, Diagnostic, Namespace, ObjectName, Resource, ResourceKey, ResourceKind,
    ResourceSet, Revision,
};

use super::convert::{self, parse, parse_optional};
use super::diagnostic::{decode_diagnostics, encode_diagnostic};
use super::limits::{DIAGNOSTICS_MAX, RESOURCES_PER_DELTA_MAX, SOCKET_PATH_BYTES_MAX};
use super::object::{Decoded, decode_at};
use super::object_encode::encode_resource;
use super::proto;
use crate::error::{At, WireError};

/// A gateway's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    pub gateway: ObjectName,
    pub cluster: ClusterName,
    /// What the gateway has already.
    pub resume: Option<Revision>,
    /// Where the node may ask for a stream on a store connection that the gateway holds.
    pub relay_socket: Option<PathBuf>,
    /// The same for a node in another pod.
    pub relay_address: Option<SocketAddr>,
    /// Whether the gateway may be sent a PingRequest.
    pub answers_pings: bool,
}

impl Subscribe {
    pub fn decode(message: proto::Subscribe) -> Result<Self, WireError> {
        let at = At::message("Subscribe");
        Ok(Self {
            gateway: parse(at.field("gateway"), &message.gateway, ObjectName::parse)?,
            cluster: parse(at.field("cluster"), &message.cluster, ClusterName::parse)?,
            resume: convert::optional_revision(at.field("resume"), message.resume)?,
            relay_socket: parse_optional(
                at.field("relay_socket"),
                &message.relay_socket,
                socket_path,
            )?,
            relay_address: parse_optional(
                at.field("relay_address"),
                &message.relay_address,
                dialled_address,
            )?,
            answers_pings: message.answers_pings,
        })
    }

    pub fn encode(&self) -> proto::Subscribe {
        proto::Subscribe {
            gateway: self.gateway.to_string(),
            cluster: self.cluster.to_string(),
            resume: self.resume.map(convert::encode_revision),
            // A path that is not UTF-8 cannot be told: then none is offered.
            relay_socket: self
                .relay_socket
                .as_deref()
                .and_then(Path::to_str)
                .unwrap_or_default()
                .into(),
            relay_address: self.relay_address.map(|a| a.to_string()).unwrap_or_default(),
            answers_pings: self.answers_pings,
        }
    }
}

fn socket_path(path: &str) -> Result<PathBuf, String> {
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!("a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes"));
    }
    if !path.starts_with('/') || path.contains('\0') {
        return Err("give the absolute path of a Unix socket".into());
    }
    Ok(path.into())
}

fn dialled_address(text: &str) -> Result<SocketAddr, &'static str> {
    let address: Option<SocketAddr> = text.parse().ok();
    let dialled = |address: &SocketAddr| address.port() > 0 && !address.ip().is_unspecified();
    address.filter(dialled).ok_or("give an IP address and a port that the node can dial")
}

/// One step from a revision to a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// `None`: a snapshot, where `upserts` is everything.
    pub from: Option<Revision>,
    pub to: Revision,
    pub upserts: Vec<Resource>,
    pub removes: Vec<ResourceKey>,
    /// Objects left out because a newer node sent kinds or schemas that this build does not know.
    pub skipped: usize,
}

impl Delta {
    pub fn decode(message: proto::Delta) -> Result<Self, WireError> {
        let at = At::message("Delta");
        let entries = message.upserts.len() + message.removes.len();
        at.field("upserts and removes").check_len(entries, RESOURCES_PER_DELTA_MAX)?;
        let to = convert::revision(at.field("to"), message.to)?;
        let from = convert::optional_revision(at.field("from"), message.from)?;
        check_step(&at, message.snapshot, from, to)?;
        let mut delta = Self { from, to, upserts: Vec::new(), removes: Vec::new(), skipped: 0 };
        let mut named = BTreeSet::new();
        for (index, key) in message.removes.into_iter().enumerate() {
            let at = at.entry("removes", index);
            match decode_key_at(&at, Some(key))? {
                Some(key) => {
                    check_unique(&at, &mut named, &key)?;
                    delta.removes.push(key);
                }
                None => delta.skipped += 1,
            }
        }
        for (index, object) in message.upserts.into_iter().enumerate() {
            let at = at.entry("upserts", index);
            match decode_at(&at, object)? {
                Decoded::Resource(resource) => {
                    check_unique(&at, &mut named, &resource.key())?;
                    delta.upserts.push(resource);
                }
                Decoded::NewerKind => delta.skipped += 1,
                Decoded::NewerSchema(key) => {
                    check_unique(&at, &mut named, &key)?;
                    delta.skipped += 1;
                    if !message.snapshot {
                        delta.removes.push(key);
                    }
                }
            }
        }
        Ok(delta)
    }

    pub fn encode(&self) -> proto::Delta {
        proto::Delta {
            from: self.from.map(convert::encode_revision),
            to: Some(convert::encode_revision(self.to)),
            snapshot: self.from.is_none(),
            upserts: self.upserts.iter().map(encode_resource).collect(),
            removes: self.removes.iter().map(encode_key).collect(),
        }
    }

    pub fn is_snapshot(&self) -> bool {
        self.from.is_none()
    }

    /// Folds the step into what a gateway has: wholly, or not at all.
    pub fn apply(
        self,
        revision: &mut Option<Revision>,
        resources: &mut ResourceSet,
    ) -> Result<(), DeltaError> {
        match self.from {
            None => *resources = ResourceSet::default(),
            Some(from) if Some(from) == *revision => {}
            Some(from) => return Err(DeltaError { from, to: self.to, have: *revision }),
        }
        for key in &self.removes {
            resources.remove(key);
        }
        for resource in self.upserts {
            resources.upsert(resource);
        }
        *revision = Some(self.to);
        Ok(())
    }
}

fn check_step(
    at: &At<'_>,
    snapshot: bool,
    from: Option<Revision>,
    to: Revision,
) -> Result<(), WireError> {
    match (snapshot, from) {
        (true, Some(from)) => {
            Err(at.field("from").refuse(from, "a snapshot begins at no revision; leave it out"))
        }
        (false, None) => Err(at.field("from").missing("a delta says which revision it changes")),
        (false, Some(from)) if from.epoch != to.epoch || from.index >= to.index => {
            let problem = format!("it must be an earlier revision of the epoch of `to`, {to}");
            Err(at.field("from").refuse(from, problem))
        }
        _ => Ok(()),
    }
}

/// What a delta means must not depend on the order in which it is read.
fn check_unique(
    at: &At<'_>,
    named: &mut BTreeSet<ResourceKey>,
    key: &ResourceKey,
) -> Result<(), WireError> {
    if named.insert(key.clone()) {
        return Ok(());
    }
    let problem = "the delta names this object twice; send each object once";
    Err(at.field("key").refuse(format_args!("{key}"), problem))
}

/// A delta that does not fit what the gateway has: it must subscribe again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the delta leads from revision {from} to {to}, but {}; subscribe again",
    have.map_or("there is nothing here yet".to_string(), |have| format!("{have} is here"))
)]
pub struct DeltaError {
    pub from: Revision,
    pub to: Revision,
    pub have: Option<Revision>,
}

/// A gateway's word that it serves a revision now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    pub revision: Revision,
    pub diagnostics: Vec<Diagnostic>,
}

impl Ack {
    /// Diagnostics with codes that this build does not know are left out.
    pub fn decode(message: proto::Ack) -> Result<Self, WireError> {
        let at = At::message("Ack");
        Ok(Self {
            revision: convert::revision(at.field("revision"), message.revision)?,
            diagnostics: decode_diagnostics(&at, message.diagnostics)?,
        })
    }

    /// Sends the first [`DIAGNOSTICS_MAX`] diagnostics.
    pub fn encode(&self) -> proto::Ack {
        let diagnostics = self.diagnostics.iter().take(DIAGNOSTICS_MAX);
        proto::Ack {
            revision: Some(convert::encode_revision(self.revision)),
            diagnostics: diagnostics.map(encode_diagnostic).collect(),
        }
    }
}

/// Decodes a key; `None` when its kind is newer than this build.
pub fn decode_key(key: proto::Key) -> Result<Option<ResourceKey>, WireError> {
    decode_key_at(&At::message("Key"), Some(key))
}

pub(super) fn decode_key_at(
    at: &At<'_>,
    key: Option<proto::Key>,
) -> Result<Option<ResourceKey>, WireError> {
    let key = key.ok_or_else(|| at.missing("an object has a key"))?;
    let kind = u16::try_from(key.kind).ok();
    let Some(kind) = kind.filter(|kind| *kind > 0) else {
        return Err(at.field("kind").refuse(key.kind, "kinds are numbers from 1 to 65535"));
    };
    let Some(kind) = ResourceKind::from_number(kind) else { return Ok(None) };
    let name = parse(at.field("name"), &key.name, ObjectName::parse)?;
    let namespace = parse_optional(at.field("namespace"), &key.namespace, Namespace::parse)?;
    match (kind.is_namespaced(), &namespace) {
        (false, Some(namespace)) => {
            let problem = format!("a {} has no namespace", kind.as_str());
            Err(at.field("namespace").refuse(namespace, problem))
        }
        (true, None) => {
            let fix = format!("a {} has a namespace", kind.as_str());
            Err(at.field("namespace").missing(&fix))
        }
        (false, None) | (true, Some(_)) => Ok(Some(ResourceKey { kind, namespace, name })),
    }
}

pub fn encode_key(key: &ResourceKey) -> proto::Key {
    proto::Key {
        kind: key.kind.number().into(),
        namespace: key.namespace.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: key.name.to_string(),
    }
}
