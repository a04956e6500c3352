//! One record: the bytes that its owner's Head covers, and what they say.

use std::sync::Arc;

use bytes::Bytes;
use model::{Resource, ResourceKind, Revision};
use wire::store::{self, Hash, StoreKey, leaf_hash};

/// A record of the store. Its bytes are kept as they came; what they say is read once.
#[derive(Debug, Clone)]
pub struct Record {
    key: StoreKey,
    bytes: Bytes,
    leaf: Hash,
    since: Revision,
    content: Content,
}

/// What the bytes say. It never decides whether a record is taken up: a build that reads more or
/// less than another must hold the same state.
#[derive(Debug, Clone)]
enum Content {
    Resource(Box<Resource>),
    /// Of a newer schema.
    Newer,
    Problem(Box<str>),
}

/// A leaf of the tree.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Withheld(Hash),
    Record(Arc<Record>),
}

impl Record {
    pub(crate) fn new(key: StoreKey, bytes: Bytes, since: Revision) -> Self {
        let leaf = leaf_hash(&key.encode(), &bytes);
        let content = read(&key, &bytes);
        Self { key, bytes, leaf, since, content }
    }

    pub fn key(&self) -> &StoreKey {
        &self.key
    }

    /// `None` when the kind is newer than this build.
    pub fn kind(&self) -> Option<ResourceKind> {
        ResourceKind::from_number(self.key.kind)
    }

    /// A [`store::Record`], as it was hashed.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn leaf(&self) -> &Hash {
        &self.leaf
    }

    /// The revision at which a record of this key first came, without a gap since.
    pub fn since(&self) -> Revision {
        self.since
    }

    /// `None` when the object cannot be read by this build.
    pub fn resource(&self) -> Option<&Resource> {
        match &self.content {
            Content::Resource(resource) => Some(resource),
            Content::Newer | Content::Problem(_) => None,
        }
    }

    /// What is wrong with the object.
    pub fn problem(&self) -> Option<&str> {
        match &self.content {
            Content::Problem(problem) => Some(problem),
            Content::Resource(_) | Content::Newer => None,
        }
    }

    /// Bytes that count against the owner's quota.
    pub(crate) fn len(&self) -> usize {
        self.key.encode().len() + self.bytes.len()
    }

    pub(crate) fn kept(self, since: Revision) -> Self {
        Self { since, ..self }
    }
}

impl Entry {
    pub(crate) fn leaf(&self) -> &Hash {
        match self {
            Self::Withheld(leaf) => leaf,
            Self::Record(record) => &record.leaf,
        }
    }

    pub(crate) fn record(&self) -> Option<&Record> {
        match self {
            Self::Withheld(_) => None,
            Self::Record(record) => Some(record),
        }
    }
}

fn read(key: &StoreKey, bytes: &[u8]) -> Content {
    match store::Record::decode(key, bytes) {
        Ok(record) => record.resource.map_or(Content::Newer, |it| Content::Resource(Box::new(it))),
        Err(error) => Content::Problem(error.to_string().into()),
    }
}
