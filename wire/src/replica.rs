//! What a federation node keeps on disk about what it reads from others, beside the verified records
//! themselves: the place in the stream, the ages of owners' words, and what was noticed.

use model::code::Code;
use model::{ClusterId, Revision};
use prost::Message as _;

use crate::error::{At, WireError};

pub use crate::grpc::fedgate::replica::v1 as proto;

/// Longest kept value.
pub const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Longest text of a finding.
pub const FINDING_TEXT_BYTES_MAX: usize = 4 * 1024;
/// Members named for one finding.
pub const TOLD_BY_MAX: usize = 8;
/// Signed records kept with one finding.
pub const EVIDENCE_MAX: usize = 4;
/// Bytes of one of them.
pub const EVIDENCE_BYTES_MAX: usize = 4 * 1024;

/// Where a Replica is in the stream that feeds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptPlace {
    pub revision: Revision,
    pub source: ClusterId,
    /// Whether the source had everything that the reader may see.
    pub whole: bool,
}

/// How old an owner's word was when it was last written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptAge {
    pub epoch: u64,
    pub generation: u64,
    pub issued_at_unix_ms: u64,
    pub age_ms: u64,
    pub expiry_age_ms: u64,
}

/// Something that was noticed about an owner or a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFinding {
    pub noticed_at_unix_ms: u64,
    pub code: Code,
    pub owner: Option<ClusterId>,
    pub source: Option<ClusterId>,
    pub told_by: Vec<ClusterId>,
    pub text: String,
    /// Encoded `Signed`s.
    pub evidence: Vec<Vec<u8>>,
}

impl KeptPlace {
    pub fn encode(&self) -> Vec<u8> {
        let Revision { epoch, index } = self.revision;
        let source = self.source.as_bytes().to_vec();
        proto::KeptPlace { epoch, index, source, whole: self.whole }.encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let at = At::message("KeptPlace");
        let kept: proto::KeptPlace = parse(&at, bytes)?;
        let revision = Revision { epoch: kept.epoch, index: kept.index };
        let source = cluster(&at.field("source"), &kept.source)?;
        Ok(Self { revision, source, whole: kept.whole })
    }
}

impl KeptAge {
    pub fn encode(&self) -> Vec<u8> {
        let Self { epoch, generation, issued_at_unix_ms, age_ms, expiry_age_ms } = *self;
        proto::KeptAge { epoch, generation, issued_at_unix_ms, age_ms, expiry_age_ms }
            .encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let kept: proto::KeptAge = parse(&At::message("KeptAge"), bytes)?;
        let proto::KeptAge { epoch, generation, issued_at_unix_ms, age_ms, expiry_age_ms } = kept;
        Ok(Self { epoch, generation, issued_at_unix_ms, age_ms, expiry_age_ms })
    }
}

impl KeptFinding {
    /// Cuts what is longer than its limit: a finding is for people.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = |id: &ClusterId| id.as_bytes().to_vec();
        let mut text = self.text.clone();
        text.truncate(text.floor_char_boundary(FINDING_TEXT_BYTES_MAX));
        let evidence = self.evidence.iter().filter(|signed| signed.len() <= EVIDENCE_BYTES_MAX);
        let kept = proto::KeptFinding {
            noticed_at_unix_ms: self.noticed_at_unix_ms,
            code: self.code.number().into(),
            owner: self.owner.iter().flat_map(bytes).collect(),
            source: self.source.iter().flat_map(bytes).collect(),
            told_by: self.told_by.iter().take(TOLD_BY_MAX).map(bytes).collect(),
            text,
            evidence: evidence.take(EVIDENCE_MAX).cloned().collect(),
        };
        kept.encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let at = At::message("KeptFinding");
        let kept: proto::KeptFinding = parse(&at, bytes)?;
        at.field("text").check_bytes(kept.text.len(), FINDING_TEXT_BYTES_MAX)?;
        at.field("told_by").check_len(kept.told_by.len(), TOLD_BY_MAX)?;
        at.field("evidence").check_len(kept.evidence.len(), EVIDENCE_MAX)?;
        for (index, signed) in kept.evidence.iter().enumerate() {
            at.entry("evidence", index).check_bytes(signed.len(), EVIDENCE_BYTES_MAX)?;
        }
        let code = Code::parse(&kept.code.to_string())
            .ok_or_else(|| at.field("code").refuse(kept.code, "no such code is registered"))?;
        let teller = |(index, id): (usize, &Vec<u8>)| cluster(&at.entry("told_by", index), id);
        Ok(Self {
            noticed_at_unix_ms: kept.noticed_at_unix_ms,
            code,
            owner: optional_cluster(&at.field("owner"), &kept.owner)?,
            source: optional_cluster(&at.field("source"), &kept.source)?,
            told_by: kept.told_by.iter().enumerate().map(teller).collect::<Result<_, _>>()?,
            text: kept.text,
            evidence: kept.evidence,
        })
    }
}

fn parse<M: prost::Message + Default>(at: &At<'_>, bytes: &[u8]) -> Result<M, WireError> {
    at.check_bytes(bytes.len(), KEPT_BYTES_MAX)?;
    let problem = "this is no value that a federation node writes; the disk or the file is damaged";
    M::decode(bytes).map_err(|error| at.refuse(format!("{error}"), problem))
}

fn optional_cluster(at: &At<'_>, bytes: &[u8]) -> Result<Option<ClusterId>, WireError> {
    if bytes.is_empty() { Ok(None) } else { cluster(at, bytes).map(Some) }
}

fn cluster(at: &At<'_>, bytes: &[u8]) -> Result<ClusterId, WireError> {
    let id = <[u8; 16]>::try_from(bytes);
    let id = id.map_err(|_| at.refuse(bytes.len(), "a cluster id has 16 bytes"))?;
    Ok(ClusterId::from_bytes(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> KeptFinding {
        KeptFinding {
            noticed_at_unix_ms: 7,
            code: model::code::SPLIT_VIEW,
            owner: Some(ClusterId::from_bytes([1; 16])),
            source: None,
            told_by: vec![ClusterId::from_bytes([2; 16])],
            text: "south signed two contents".into(),
            evidence: vec![vec![1], vec![2]],
        }
    }

    #[test]
    fn what_is_kept_comes_back() {
        let source = ClusterId::from_bytes([9; 16]);
        let revision = Revision { epoch: 2, index: 3 };
        let place = KeptPlace { revision, source, whole: true };
        assert_eq!(KeptPlace::decode(&place.encode()), Ok(place));
        let age = KeptAge {
            epoch: 1,
            generation: 2,
            issued_at_unix_ms: 3,
            age_ms: 4,
            expiry_age_ms: u64::MAX,
        };
        assert_eq!(KeptAge::decode(&age.encode()), Ok(age));
        assert_eq!(KeptFinding::decode(&finding().encode()), Ok(finding()));
    }

    #[test]
    fn a_long_finding_is_cut_at_a_character() {
        let mut long = finding();
        long.text = "ü".repeat(FINDING_TEXT_BYTES_MAX);
        long.evidence = vec![vec![0; EVIDENCE_BYTES_MAX + 1], vec![5]];
        let kept = KeptFinding::decode(&long.encode()).unwrap();
        assert_eq!(kept.text.len(), FINDING_TEXT_BYTES_MAX);
        assert_eq!(kept.evidence, vec![vec![5]]);
    }

    #[test]
    fn damaged_values_are_refused_with_their_place() {
        let kept = |change: fn(&mut proto::KeptFinding)| {
            let mut kept = proto::KeptFinding::decode(&finding().encode()[..]).unwrap();
            change(&mut kept);
            KeptFinding::decode(&kept.encode_to_vec()).unwrap_err().to_string()
        };
        let cases = [
            (kept(|x| x.code = 9999), "KeptFinding.code = 9999: no such code is registered"),
            (kept(|x| x.owner = vec![1]), "KeptFinding.owner = 1: a cluster id has 16 bytes"),
            (
                kept(|x| x.told_by = vec![vec![]]),
                "KeptFinding.told_by[0] = 0: a cluster id has 16 bytes",
            ),
            (
                kept(|x| x.told_by = vec![vec![0; 16]; 9]),
                "KeptFinding.told_by = 9 entries: at most 8 entries are allowed",
            ),
            (
                kept(|x| x.evidence = vec![vec![]; 5]),
                "KeptFinding.evidence = 5 entries: at most 4 entries are allowed",
            ),
            (
                kept(|x| x.evidence[1] = vec![0; 4097]),
                "KeptFinding.evidence[1] = 4097 bytes: at most 4096 bytes are allowed",
            ),
            (
                kept(|x| x.text = "x".repeat(4097)),
                "KeptFinding.text = 4097 bytes: at most 4096 bytes are allowed",
            ),
            (
                KeptAge::decode(&[0; KEPT_BYTES_MAX + 1]).unwrap_err().to_string(),
                "KeptAge = 65537 bytes: at most 65536 bytes are allowed",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error, expected);
        }
        let place = KeptPlace::decode(&[]).unwrap_err().to_string();
        assert_eq!(place, "KeptPlace.source = 0: a cluster id has 16 bytes");
        let garbage = KeptPlace::decode(&[0xff; 7]).unwrap_err().to_string();
        assert!(garbage.contains("the disk or the file is damaged"), "{garbage}");
    }
}
