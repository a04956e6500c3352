//! What a Replica keeps on disk: the verified state, its place in the stream, the ages of owners'
//! words, and what was noticed. All lies in one family of the node's store.
//!
//! A value is framed as `version u8, CRC-32C u32 over key and value, value`. The verified state and
//! the place change in one batch, which is synced before anybody sees the new state: a node that
//! restarts never goes back behind a Head that it has used.

use std::sync::Arc;

use model::{ClusterId, FederationId};
use wire::replica::{KeptAge, KeptFinding, KeptPlace};

use crate::store::{Disk, DiskError, Family, KvWrite, Pair, Step};

use super::limits::{FINDINGS_MAX, SCAN_BYTES_MAX};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

const ANCHOR: u8 = b'n';
const PLACE: u8 = b'p';
const STATE: u8 = b's';
const AGE: u8 = b'a';
const FINDING: u8 = b'f';

/// Why what lies on the disk cannot be used, or nothing can be put there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShelfError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the replica's state is damaged: key {key}: {problem}")]
    Damaged { key: String, problem: String },
}

/// The replica's part of the node's disk.
#[derive(Clone)]
pub(crate) struct Shelf(Arc<dyn Disk>);

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}

impl Shelf {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self(disk)
    }

    /// The federation whose root is believed.
    pub(crate) fn federation(&self) -> Result<Option<FederationId>, ShelfError> {
        let parse = |value: Vec<u8>| {
            let id = <[u8; 16]>::try_from(&value[..]);
            let id = id.map_err(|_| damaged(&[ANCHOR], "a federation id has 16 bytes"))?;
            Ok(FederationId::from_bytes(id))
        };
        self.read(&[ANCHOR])?.map(parse).transpose()
    }

    /// Believes another federation, and forgets the state of the one before.
    pub(crate) fn begin(&self, federation: &FederationId) -> Result<(), ShelfError> {
        let (from, to) = (vec![STATE], Some(vec![STATE + 1]));
        let batch = vec![
            Step::DeleteRange { family: Family::Replica, from, to },
            Step::Delete { family: Family::Replica, key: vec![PLACE] },
            put(vec![ANCHOR], federation.as_bytes()),
        ];
        Ok(self.0.write(batch, true)?)
    }

    /// The pairs of the verified state, and where in the stream it is.
    pub(crate) fn state(&self) -> Result<(Vec<Pair>, Option<KeptPlace>), ShelfError> {
        let place = self.read(&[PLACE])?;
        let place = place.map(|value| KeptPlace::decode(&value).map_err(|e| damaged(&[PLACE], e)));
        let pairs = self.scan(STATE)?;
        let bare = pairs.into_iter().map(|(key, value)| (key[1..].to_vec(), value));
        Ok((bare.collect(), place.transpose()?))
    }

    /// Puts a step of the state on the disk, and waits until it is there.
    pub(crate) fn advance(&self, writes: &[KvWrite], place: &KeptPlace) -> Result<(), ShelfError> {
        let mut batch: Vec<Step> = writes.iter().map(|write| step(STATE, write)).collect();
        batch.push(put(vec![PLACE], &place.encode()));
        Ok(self.0.write(batch, true)?)
    }

    /// Puts a whole state in the place of the one before.
    pub(crate) fn replace(&self, pairs: &[Pair], place: &KeptPlace) -> Result<(), ShelfError> {
        let from = vec![STATE];
        let to = Some(vec![STATE + 1]);
        let mut batch = vec![Step::DeleteRange { family: Family::Replica, from, to }];
        batch.extend(pairs.iter().map(|(key, value)| put(prefixed(STATE, key), value)));
        batch.push(put(vec![PLACE], &place.encode()));
        Ok(self.0.write(batch, true)?)
    }

    /// Forgets the state; ages and findings too.
    pub(crate) fn clear(&self) -> Result<(), ShelfError> {
        let all = Step::DeleteRange { family: Family::Replica, from: vec![], to: None };
        Ok(self.0.write(vec![all], true)?)
    }

    pub(crate) fn ages(&self) -> Result<Vec<(ClusterId, KeptAge)>, ShelfError> {
        let parse = |(key, value): Pair| {
            let owner = <[u8; 16]>::try_from(&key[1..]);
            let owner = owner.map_err(|_| damaged(&key, "a cluster id has 16 bytes"))?;
            let age = KeptAge::decode(&value).map_err(|error| damaged(&key, error))?;
            Ok((ClusterId::from_bytes(owner), age))
        };
        self.scan(AGE)?.into_iter().map(parse).collect()
    }

    /// Not synced: after a power failure ages are a little younger, which harms nobody.
    pub(crate) fn keep_ages(&self, ages: &[(ClusterId, KeptAge)]) -> Result<(), ShelfError> {
        let (from, to) = (vec![AGE], Some(vec![AGE + 1]));
        let mut batch = vec![Step::DeleteRange { family: Family::Replica, from, to }];
        let keep = |(owner, age): &(ClusterId, KeptAge)| {
            put(prefixed(AGE, owner.as_bytes()), &age.encode())
        };
        batch.extend(ages.iter().map(keep));
        Ok(self.0.write(batch, false)?)
    }

    /// With their numbers, oldest first.
    pub(crate) fn findings(&self) -> Result<Vec<(u64, KeptFinding)>, ShelfError> {
        let parse = |(key, value): Pair| {
            let number = <[u8; 8]>::try_from(&key[1..]);
            let number = number.map_err(|_| damaged(&key, "a finding's number has 8 bytes"))?;
            let finding = KeptFinding::decode(&value).map_err(|error| damaged(&key, error))?;
            Ok((u64::from_be_bytes(number), finding))
        };
        self.scan(FINDING)?.into_iter().map(parse).collect()
    }

    /// Adds a finding; the oldest beyond [`FINDINGS_MAX`] goes.
    pub(crate) fn keep_finding(
        &self,
        number: u64,
        finding: &KeptFinding,
    ) -> Result<(), ShelfError> {
        let key = prefixed(FINDING, &number.to_be_bytes());
        let mut batch = vec![put(key, &finding.encode())];
        if let Some(oldest) = number.checked_sub(FINDINGS_MAX as u64) {
            let to = Some(prefixed(FINDING, &(oldest + 1).to_be_bytes()));
            let from = vec![FINDING];
            batch.push(Step::DeleteRange { family: Family::Replica, from, to });
        }
        Ok(self.0.write(batch, true)?)
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ShelfError> {
        let value = self.0.get(Family::Replica, key)?;
        value.map(|value| open(key, &value)).transpose()
    }

    /// All pairs under a prefix, checked.
    fn scan(&self, prefix: u8) -> Result<Vec<Pair>, ShelfError> {
        let (mut from, to) = (vec![prefix], [prefix + 1]);
        let mut pairs = Vec::new();
        loop {
            let some = self.0.scan(Family::Replica, &from, Some(&to), SCAN_BYTES_MAX)?;
            let Some((last, _)) = some.last() else { return Ok(pairs) };
            from.clone_from(last);
            from.push(0);
            for (key, value) in some {
                let value = open(&key, &value)?;
                pairs.push((key, value));
            }
        }
    }
}

fn step(prefix: u8, write: &KvWrite) -> Step {
    let key = prefixed(prefix, &write.key);
    match &write.value {
        Some(value) => put(key, value),
        None => Step::Delete { family: Family::Replica, key },
    }
}

fn put(key: Vec<u8>, value: &[u8]) -> Step {
    let value = seal(&key, value);
    Step::Put { family: Family::Replica, key, value }
}

fn prefixed(prefix: u8, key: &[u8]) -> Vec<u8> {
    [&[prefix], key].concat()
}

fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(HEADER_BYTES + value.len());
    sealed.push(VERSION);
    sealed.extend(checksum(key, value).to_le_bytes());
    sealed.extend(value);
    sealed
}

fn open(key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, ShelfError> {
    let Some((header, value)) = sealed.split_first_chunk::<HEADER_BYTES>() else {
        return Err(damaged(key, format!("{} bytes are no value", sealed.len())));
    };
    let [version, a, b, c, d] = *header;
    if version != VERSION {
        let problem = format!("version is {version}, this program reads {VERSION}: upgrade it");
        return Err(damaged(key, problem));
    }
    let (written, found) = (u32::from_le_bytes([a, b, c, d]), checksum(key, value));
    if written != found {
        return Err(damaged(key, format!("checksum is {written:08x}, its bytes give {found:08x}")));
    }
    Ok(value.to_vec())
}

/// The key's length comes first, so that no byte can move between key and value.
fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&(key.len() as u64).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(sum, key), value)
}

fn damaged(key: &[u8], problem: impl std::fmt::Display) -> ShelfError {
    let hex = key.iter().take(48).map(|byte| format!("{byte:02x}")).collect();
    ShelfError::Damaged { key: hex, problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use model::Revision;
    use model::code::RECORDS_WITHHELD;
    use tempfile::TempDir;

    use super::*;
    use crate::store::RocksDisk;

    fn shelf() -> (TempDir, Shelf) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(RocksDisk::open(folder.path()).unwrap());
        (folder, Shelf::new(disk))
    }

    fn place(index: u64) -> KeptPlace {
        let revision = Revision { epoch: 1, index };
        KeptPlace { revision, source: ClusterId::from_bytes([3; 16]), whole: true }
    }

    fn write(key: &[u8], value: Option<&[u8]>) -> KvWrite {
        KvWrite { key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
    }

    #[test]
    fn state_and_place_change_together() {
        let (_folder, shelf) = shelf();
        assert_eq!(shelf.state().unwrap(), (vec![], None));
        let writes = [write(b"a", Some(b"1")), write(b"b", Some(b"2"))];
        shelf.advance(&writes, &place(1)).unwrap();
        shelf.advance(&[write(b"a", None)], &place(2)).unwrap();
        let b = vec![(b"b".to_vec(), b"2".to_vec())];
        assert_eq!(shelf.state().unwrap(), (b, Some(place(2))));
        let c = vec![(b"c".to_vec(), vec![])];
        shelf.replace(&c, &place(3)).unwrap();
        assert_eq!(shelf.state().unwrap(), (c, Some(place(3))));
        // Another federation begins with nothing.
        let federation = FederationId::from_bytes([7; 16]);
        shelf.begin(&federation).unwrap();
        assert_eq!(shelf.state().unwrap(), (vec![], None));
        assert_eq!(shelf.federation().unwrap(), Some(federation));
        shelf.clear().unwrap();
        assert_eq!(shelf.federation().unwrap(), None);
    }

    #[test]
    fn what_was_altered_is_refused_with_its_key() {
        let cases: [(Vec<u8>, &str); 4] = [
            (vec![], "key 7361: 0 bytes are no value"),
            (vec![1, 0, 0, 0], "key 7361: 4 bytes are no value"),
            (vec![9, 0, 0, 0, 0, 1], "key 7361: version is 9, this program reads 1: upgrade it"),
            (vec![1, 0, 0, 0, 0, 1], "key 7361: checksum is 00000000, its bytes give "),
        ];
        for (value, expected) in cases {
            let (_folder, shelf) = shelf();
            let put = Step::Put { family: Family::Replica, key: b"sa".to_vec(), value };
            shelf.0.write(vec![put], true).unwrap();
            let error = shelf.state().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        // A good value under another's key is no good value.
        let (_folder, shelf) = shelf();
        shelf.advance(&[write(b"a", Some(b"1"))], &place(1)).unwrap();
        let value = shelf.0.get(Family::Replica, b"sa").unwrap().unwrap();
        let put = Step::Put { family: Family::Replica, key: b"sb".to_vec(), value };
        shelf.0.write(vec![put], true).unwrap();
        let error = shelf.state().unwrap_err().to_string();
        assert!(error.contains("key 7362: checksum is "), "{error}");
    }

    #[test]
    fn findings_on_the_disk_are_bounded() {
        let (_folder, shelf) = shelf();
        let finding = |number| KeptFinding {
            noticed_at_unix_ms: number,
            code: RECORDS_WITHHELD,
            owner: None,
            source: None,
            told_by: vec![],
            text: "late".into(),
            evidence: vec![vec![1]],
        };
        let count = FINDINGS_MAX as u64 + 10;
        for number in 0..count {
            shelf.keep_finding(number, &finding(number)).unwrap();
        }
        let kept = shelf.findings().unwrap();
        assert_eq!(kept.len(), FINDINGS_MAX);
        assert_eq!(kept.last(), Some(&(count - 1, finding(count - 1))));
    }

    #[test]
    fn ages_take_the_place_of_those_before() {
        let (_folder, shelf) = shelf();
        let age =
            KeptAge { epoch: 1, generation: 2, issued_at_unix_ms: 3, age_ms: 4, expiry_age_ms: 5 };
        let (south, west) = (ClusterId::from_bytes([1; 16]), ClusterId::from_bytes([2; 16]));
        shelf.keep_ages(&[(south, age), (west, age)]).unwrap();
        shelf.keep_ages(&[(west, age)]).unwrap();
        assert_eq!(shelf.ages().unwrap(), [(west, age)]);
    }
}
