//! Snapshot files, and the ways back when the members are lost: from a file, from one node's own
//! data, or empty.
//!
//! A file is a line of text, `u32` length and sealed header, then the machine's pairs as they travel
//! between nodes; the header has their SHA-256.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::Revision;
use openraft::EntryPayload;
use sha2::{Digest, Sha256};

use super::Store;
use super::applied::replace_machine;
use super::format::{self, FormatError, Kind, Reader, Writer};
use super::health::{check, read_number};
use super::log::{put_meta, read_ends, read_vote};
use super::network::encode_pairs;
use super::receive::decode_pairs;
use super::record::{
    self, Applied, EPOCH_KEY, NODE_KEY, PURGED_KEY, RESEED_KEY, VOTE_KEY, entry_key,
};
use super::seam::{Disk, DiskError, Family, Machine, Pair, Step};
use super::types::{Entry, LogId, Membership, StoredMembership, Vote};
use crate::limits::STORE_SNAPSHOT_BYTES_MAX;

const MAGIC: &[u8] = b"fedgate store snapshot 1\n";
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// What a snapshot file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Which node wrote it.
    pub node_id: u64,
    pub revision: Revision,
    pub term: u64,
    pub voters: Vec<u64>,
    pub standbys: Vec<u64>,
    pub pairs: u64,
    /// Bytes of the pairs.
    pub bytes: u64,
    /// Their SHA-256.
    pub digest: [u8; 32],
}

/// A store that was made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its epoch; nodes of an older one are fenced off.
    pub epoch: u64,
    /// The last entry that it has.
    pub index: u64,
}

/// Why a file or a store is of no use.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("cannot {verb} {}: {source}", path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is no snapshot that can be used: {text}", path.display())]
    Snapshot { path: PathBuf, text: String },
    #[error("the data folder holds a store already; restore into an empty one")]
    NotEmpty,
    #[error(
        "this node's store has no members, so that there is nothing to recover; restore a snapshot"
    )]
    NothingThere,
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl<M: Machine> Store<M> {
    /// Writes this node's state into a file.
    pub async fn save_snapshot(&self, path: &Path) -> Result<SnapshotInfo, RecoverError> {
        let (applied, machine) = self.inner.replica.position();
        let (node_id, epoch) = (self.node_id(), self.epoch());
        let target = path.to_owned();
        let written = tokio::task::spawn_blocking(move || {
            let (header, info, body) = compose(node_id, epoch, &applied, machine.to_kv());
            write_file(&target, &[MAGIC, &(header.len() as u32).to_le_bytes(), &header, &body])?;
            Ok::<_, io::Error>(info)
        });
        let written = written.await.unwrap_or_else(|problem| Err(io::Error::other(problem)));
        written.map_err(|source| RecoverError::File { verb: "write", path: path.into(), source })
    }
}

fn compose(
    node_id: u64,
    epoch: u64,
    applied: &Applied,
    pairs: Vec<Pair>,
) -> (Vec<u8>, SnapshotInfo, Vec<u8>) {
    let count = pairs.len() as u64;
    let body = encode_pairs(pairs);
    let digest: [u8; 32] = Sha256::digest(&body).into();
    let info = info_of(node_id, epoch, applied, count, body.len() as u64, digest);
    let mut header = Writer::default();
    header.u64(node_id).u64(epoch).maybe_log_id(applied.log_id.as_ref());
    header.stored_membership(&applied.membership).u64(count).u64(info.bytes).raw(&digest);
    (header.seal(Kind::Snapshot, &[]), info, body)
}

fn info_of(
    node_id: u64,
    epoch: u64,
    applied: &Applied,
    pairs: u64,
    bytes: u64,
    digest: [u8; 32],
) -> SnapshotInfo {
    let membership = applied.membership.membership();
    SnapshotInfo {
        node_id,
        revision: Revision { epoch, index: applied.log_id.map_or(0, |id| id.index) },
        term: applied.log_id.map_or(0, |id| id.leader_id.term),
        voters: membership.voter_ids().collect(),
        standbys: membership.learner_ids().collect(),
        pairs,
        bytes,
        digest,
    }
}

/// Either the whole file is there under its name, or the old one.
fn write_file(path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    for piece in pieces {
        file.write_all(piece)?;
    }
    file.sync_all()?;
    fs::rename(&part, path)?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Reads what a file says of itself. The pairs are not looked at; [`verify_snapshot`] does that.
pub fn inspect_snapshot(path: &Path) -> Result<SnapshotInfo, RecoverError> {
    Ok(read_file(path)?.0)
}

/// Checks every byte of a file, and that the machine accepts its state.
pub fn verify_snapshot<M: Machine>(path: &Path) -> Result<SnapshotInfo, RecoverError> {
    load_snapshot::<M>(path).map(|(info, _)| info)
}

/// As [`verify_snapshot`], with the state.
pub fn load_snapshot<M: Machine>(path: &Path) -> Result<(SnapshotInfo, M), RecoverError> {
    let (info, _, body) = read_file(path)?;
    let (_, machine) = read_body::<M>(path, &info, &body)?;
    Ok((info, machine))
}

fn read_file(path: &Path) -> Result<(SnapshotInfo, Applied, Vec<u8>), RecoverError> {
    let file_error = |source| RecoverError::File { verb: "read", path: path.into(), source };
    let refuse = |text: String| RecoverError::Snapshot { path: path.into(), text };
    let length = fs::metadata(path).map_err(file_error)?.len();
    let most = (STORE_SNAPSHOT_BYTES_MAX + HEADER_BYTES_MAX) as u64;
    if length > most {
        return Err(refuse(format!("it has {length} bytes, at most {most} are allowed")));
    }
    let bytes = fs::read(path).map_err(file_error)?;
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err(refuse("it does not begin as one; was it written by another program?".into()));
    };
    let (info, applied, body) = read_header(rest).map_err(|error| refuse(error.to_string()))?;
    Ok((info, applied, body.to_vec()))
}

fn read_header(bytes: &[u8]) -> Result<(SnapshotInfo, Applied, &[u8]), FormatError> {
    let mut outer = Reader::new("file", bytes);
    let sealed = outer.bytes("header", HEADER_BYTES_MAX)?;
    let mut header = Reader::new("header", format::open("header", Kind::Snapshot, &[], sealed)?);
    let (node_id, epoch) = (header.u64("node")?, header.u64("epoch")?);
    let log_id = header.maybe_log_id("log id")?;
    let applied = Applied { log_id, membership: header.stored_membership("membership")? };
    let (pairs, length) = (header.u64("pairs")?, header.u64("bytes")?);
    let digest = header.digest("digest")?;
    header.end()?;
    let body = outer.rest();
    if body.len() as u64 != length {
        let rule = "the header announces another number: the file was cut or added to";
        return Err(outer.wrong("bytes", body.len(), rule));
    }
    Ok((info_of(node_id, epoch, &applied, pairs, length, digest), applied, body))
}

fn read_body<M: Machine>(
    path: &Path,
    info: &SnapshotInfo,
    body: &[u8],
) -> Result<(Vec<Pair>, M), RecoverError> {
    let refuse = |text: String| RecoverError::Snapshot { path: path.into(), text };
    if <[u8; 32]>::from(Sha256::digest(body)) != info.digest {
        return Err(refuse("its hash is not the one in its header: it was altered".into()));
    }
    let pairs = decode_pairs(body).map_err(|error| refuse(error.to_string()))?;
    if pairs.len() as u64 != info.pairs {
        return Err(refuse(format!(
            "it has {} pairs, its header says {}",
            pairs.len(),
            info.pairs
        )));
    }
    let machine = M::load(pairs.clone());
    let machine = machine.map_err(|text| refuse(format!("the state was refused: {text}")))?;
    Ok((pairs, machine))
}

/// Makes a store from a snapshot file, with this node as its only voter and the next epoch. The disk
/// must be empty.
pub fn restore_snapshot<M: Machine>(
    path: &Path,
    disk: &dyn Disk,
    node_id: u64,
) -> Result<Recovered, RecoverError> {
    if !check::<M>(disk, node_id)?.blank {
        return Err(RecoverError::NotEmpty);
    }
    let (batch, restored) = restored::<M>(path, node_id, 0)?;
    disk.write(batch, true)?;
    Ok(restored)
}

/// As [`restore_snapshot`], in place of what is on the disk, all at once: after a crash, either is
/// there. The epoch is above that of both, because the others may know either. The store must be
/// closed.
pub fn replace_by_snapshot<M: Machine>(
    path: &Path,
    disk: &dyn Disk,
    node_id: u64,
) -> Result<Recovered, RecoverError> {
    // One that cannot be read is not in force anywhere.
    let epoch = read_number(disk, EPOCH_KEY).ok().flatten().unwrap_or(0);
    let (steps, restored) = restored::<M>(path, node_id, epoch)?;
    let mut batch = emptied();
    batch.extend(steps);
    disk.write(batch, true)?;
    Ok(restored)
}

fn restored<M: Machine>(
    path: &Path,
    node_id: u64,
    known_epoch: u64,
) -> Result<(Vec<Step>, Recovered), RecoverError> {
    let (info, applied, body) = read_file(path)?;
    let (pairs, _) = read_body::<M>(path, &info, &body)?;
    let (epoch, term) = (info.revision.epoch.max(known_epoch) + 1, info.term + 1);
    let mut batch = Vec::new();
    let last = applied.log_id;
    let applied = Applied { log_id: last, membership: StoredMembership::default() };
    batch.extend(replace_machine(pairs, &applied));
    if let Some(last) = last {
        batch.push(put_meta(PURGED_KEY, record::encode_purged(&last)));
    }
    batch.extend(sole_voter(node_id, term, last));
    batch.extend(numbers(node_id, epoch));
    Ok((batch, Recovered { epoch, index: info.revision.index }))
}

/// Nothing of the store is left; what a Replica keeps is none of it.
fn emptied() -> Vec<Step> {
    let families = [Family::Log, Family::Meta, Family::Machine];
    families.map(|family| Step::DeleteRange { family, from: Vec::new(), to: None }).into()
}

/// Makes a store from this node's own data when the other voters are lost for good: all entries that
/// it has count, it is the only voter, and the epoch is the next one, so that the old members are
/// fenced off should they come back. The store must be closed.
pub fn recover<M: Machine>(disk: &dyn Disk, node_id: u64) -> Result<Recovered, RecoverError> {
    let loaded = check::<M>(disk, node_id)?;
    if loaded.blank || loaded.reseeding {
        return Err(RecoverError::NothingThere);
    }
    let (_, last) = read_ends(disk)?;
    let vote = read_vote(disk)?.unwrap_or_default();
    let term = last.map_or(0, |last| last.leader_id.term).max(vote.leader_id.term) + 1;
    let epoch = loaded.epoch + 1;
    let mut batch = sole_voter(node_id, term, last);
    batch.extend(numbers(node_id, epoch));
    disk.write(batch, true)?;
    Ok(Recovered { epoch, index: last.map_or(0, |last| last.index) })
}

/// Empties a damaged store. The node then takes part in nothing until
/// [`Store::readmit`] finds that the members have let it go: it may have promised votes and
/// acknowledged entries that it no longer knows of.
pub fn reseed(disk: &dyn Disk, node_id: u64) -> Result<(), DiskError> {
    let mut batch = emptied();
    batch.push(put_meta(NODE_KEY, record::encode_number(NODE_KEY, node_id)));
    batch.push(put_meta(RESEED_KEY, record::encode_number(RESEED_KEY, 1)));
    disk.write(batch, true)?;
    // Read back: a disk that cannot even do this is to be replaced.
    match read_number(disk, RESEED_KEY)? {
        Some(_) => Ok(()),
        None => Err(DiskError::Damaged("what was written is not there".into())),
    }
}

/// A last entry that makes this node the only voter. It stands for election by itself.
fn sole_voter(node_id: u64, term: u64, last: Option<LogId>) -> Vec<Step> {
    let index = last.map_or(0, |last| last.index + 1);
    let membership = Membership::new(vec![[node_id].into()], ());
    let log_id = LogId::new(openraft::CommittedLeaderId::new(term, node_id), index);
    let entry = Entry { log_id, payload: EntryPayload::Membership(membership) };
    let put = Step::Put {
        family: Family::Log,
        key: entry_key(index).to_vec(),
        value: record::encode_entry(&entry),
    };
    vec![put, put_meta(VOTE_KEY, record::encode_vote(&Vote::new(term, node_id)))]
}

fn numbers(node_id: u64, epoch: u64) -> Vec<Step> {
    vec![
        put_meta(NODE_KEY, record::encode_number(NODE_KEY, node_id)),
        put_meta(EPOCH_KEY, record::encode_number(EPOCH_KEY, epoch)),
    ]
}
