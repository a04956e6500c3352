//! The last resources that were in service, on disk: with them a gateway starts without its
//! federation node.
//!
//! The file is `magic, version, length, SHA-256 of the body, body`; the body is a `Delta` of
//! `fedgate.resource.v1` that is a snapshot. It is replaced as a whole; a damaged file is refused
//! with a reason and treated as absent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use model::{ResourceSet, Revision};
use prost::Message;
use wire::resource::{Delta, WireError, proto};

use crate::limits::SNAPSHOT_BYTES_MAX;

const MAGIC: &[u8; 8] = b"fedgsnap";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 8 + 4 + 8 + 32;

/// Where the snapshot is kept.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    path: PathBuf,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("failed to {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is damaged: {problem}; it is not used, and the next snapshot replaces it", path.display())]
    Damaged { path: PathBuf, problem: String },
}

impl SnapshotFile {
    pub fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("snapshot.bin") }
    }

    /// `None` when there is no file.
    pub fn load(&self) -> Result<Option<(Revision, ResourceSet)>, SnapshotError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io("open", error)),
        };
        let mut bytes = Vec::new();
        file.take(SNAPSHOT_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.io("read", error))?;
        decode(&bytes)
            .map(Some)
            .map_err(|problem| SnapshotError::Damaged { path: self.path.clone(), problem })
    }

    /// A crash at any moment leaves the old file or the new one.
    pub fn save(&self, revision: Revision, resources: &ResourceSet) -> Result<(), SnapshotError> {
        let staged = self.path.with_extension("bin.new");
        let bytes = encode(revision, resources);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&staged)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
        written.map_err(|error| self.io("write", error))?;
        fs::rename(&staged, &self.path).map_err(|error| self.io("replace", error))?;
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| self.io("sync the folder of", error))
    }

    fn io(&self, action: &'static str, source: io::Error) -> SnapshotError {
        SnapshotError::Io { action, path: self.path.clone(), source }
    }
}

fn encode(revision: Revision, resources: &ResourceSet) -> Vec<u8> {
    let upserts = resources.values().cloned().collect();
    let delta = Delta { from: None, to: revision, upserts, removes: vec![], skipped: 0 };
    let body = delta.encode().encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
    bytes.extend_from_slice(digest(&SHA256, &body).as_ref());
    bytes.extend_from_slice(&body);
    bytes
}

fn decode(bytes: &[u8]) -> Result<(Revision, ResourceSet), String> {
    if bytes.len() as u64 > SNAPSHOT_BYTES_MAX {
        return Err(format!("it is longer than {SNAPSHOT_BYTES_MAX} bytes"));
    }
    let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(format!("it has {} bytes, fewer than its header", bytes.len()));
    };
    if !header.starts_with(MAGIC) {
        return Err("it does not begin as a snapshot does".into());
    }
    let version = u32::from_be_bytes(header[8..12].try_into().expect("four bytes"));
    if version != VERSION {
        return Err(format!("it has format version {version}, and this build reads {VERSION}"));
    }
    let length = u64::from_be_bytes(header[12..20].try_into().expect("eight bytes"));
    if length != body.len() as u64 {
        return Err(format!("it should have {length} bytes of content and has {}", body.len()));
    }
    if digest(&SHA256, body).as_ref() != &header[20..] {
        return Err("its checksum is wrong".into());
    }
    let message = proto::Delta::decode(body).map_err(|error| error.to_string())?;
    let delta = Delta::decode(message).map_err(|error: WireError| error.to_string())?;
    if !delta.is_snapshot() {
        return Err("it holds a step, not a snapshot".into());
    }
    let (mut revision, mut resources) = (None, ResourceSet::default());
    delta.apply(&mut revision, &mut resources).map_err(|error| error.to_string())?;
    revision.map(|revision| (revision, resources)).ok_or_else(|| "it has no revision".into())
}

#[cfg(test)]
mod tests {
    use model::{AppProtocol, Resource, Service, ServiceName, ServicePort};

    use super::*;

    fn resources() -> ResourceSet {
        let port = ServicePort { name: None, port: 80, protocol: AppProtocol::Http };
        let name = ServiceName::parse("shop/api").unwrap();
        [Resource::Service(Service { name, ports: vec![port] })].into_iter().collect()
    }

    const REVISION: Revision = Revision { epoch: 3, index: 9 };

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let file = SnapshotFile::new(folder.path());
        assert!(file.load().unwrap().is_none());
        file.save(Revision { epoch: 1, index: 1 }, &ResourceSet::default()).unwrap();
        file.save(REVISION, &resources()).unwrap();
        assert_eq!(file.load().unwrap(), Some((REVISION, resources())));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn every_damage_is_noticed_and_named() {
        let good = encode(REVISION, &resources());
        assert!(decode(&good).is_ok());
        type Damage = fn(&mut Vec<u8>);
        let table: [(Damage, &str); 9] = [
            (Vec::clear, "it has 0 bytes"),
            (|bytes| bytes.truncate(40), "it has 40 bytes, fewer than its header"),
            (|bytes| bytes[0] ^= 1, "does not begin as a snapshot"),
            (|bytes| bytes[11] = 2, "format version 2, and this build reads 1"),
            (|bytes| bytes.truncate(bytes.len() - 1), "bytes of content and has"),
            (|bytes| bytes.push(0), "bytes of content and has"),
            (|bytes| bytes[25] ^= 1, "its checksum is wrong"),
            (|bytes| *bytes.last_mut().unwrap() ^= 1, "its checksum is wrong"),
            (|bytes| bytes[HEADER_BYTES] ^= 0x40, "its checksum is wrong"),
        ];
        for (damage, part) in table {
            let mut bytes = good.clone();
            damage(&mut bytes);
            let problem = decode(&bytes).unwrap_err();
            assert!(problem.contains(part), "{problem:?} has not {part:?}");
        }
        for length in 0..good.len() {
            assert!(decode(&good[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_body_that_is_no_snapshot_is_refused_although_its_checksum_is_right() {
        let seal = |body: &[u8]| {
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&VERSION.to_be_bytes());
            bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
            bytes.extend_from_slice(digest(&SHA256, body).as_ref());
            bytes.extend_from_slice(body);
            bytes
        };
        assert!(decode(&seal(b"\xff\xff")).is_err());
        assert!(decode(&seal(b"")).is_err());
        let from = Some(Revision { epoch: 3, index: 8 });
        let step = Delta { from, to: REVISION, upserts: vec![], removes: vec![], skipped: 0 };
        let problem = decode(&seal(&step.encode().encode_to_vec())).unwrap_err();
        assert_eq!(problem, "it holds a step, not a snapshot");
        let folder = tempfile::tempdir().unwrap();
        let file = SnapshotFile::new(folder.path());
        fs::write(folder.path().join("snapshot.bin"), seal(b"\xff\xff")).unwrap();
        let error = file.load().unwrap_err().to_string();
        assert!(error.contains("snapshot.bin is damaged: "), "{error}");
        assert!(error.ends_with("the next snapshot replaces it"), "{error}");
    }
}
