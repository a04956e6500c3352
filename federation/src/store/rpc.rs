//! What the store's nodes say to each other. The transport carries these bytes and knows nothing of
//! them; docs/reference/store-log.md describes them.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use super::format::{self, FormatError, Kind, Reader, Writer};
use super::record::{read_entry, write_entry};
use super::types::{LogId, StoredMembership, Types, Vote};
use crate::limits::{STORE_ENTRIES_PER_APPEND_MAX, STORE_SNAPSHOT_PART_BYTES_MAX};

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const PRE_VOTE: u8 = 3;
const CAMPAIGN: u8 = 4;
const PART: u8 = 5;
const STANDING: u8 = 6;
const REFUSED: u8 = 255;
/// Bytes of a refusal's text.
const TEXT_BYTES_MAX: usize = 1024;

/// A question to another node.
#[derive(Debug)]
pub(super) struct Request {
    /// The sender's store epoch, 0 if it has none yet. Different epochs do not talk: that is how a
    /// recovered store fences off its old members.
    pub(super) epoch: u64,
    pub(super) call: Call,
}

#[derive(Debug)]
pub(super) enum Call {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    /// Would you vote for me, if I asked? Changes nothing.
    PreVote {
        last_log_id: Option<LogId>,
    },
    /// From the leader: take my place.
    Campaign {
        term: u64,
    },
    Part(SnapshotPart),
    /// From a node that lost its log: am I still a member?
    Standing,
}

/// A piece of a snapshot, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotPart {
    pub(super) vote: Vote,
    /// Which transfer of this sender it belongs to.
    pub(super) transfer: u64,
    pub(super) last_log_id: Option<LogId>,
    pub(super) membership: StoredMembership,
    /// Where it begins.
    pub(super) offset: u64,
    /// Bytes of the whole.
    pub(super) total: u64,
    /// SHA-256 of the whole.
    pub(super) digest: [u8; 32],
    pub(super) bytes: Vec<u8>,
}

/// What a node answers.
#[derive(Debug)]
pub(super) enum Reply {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    PreVote { granted: bool },
    Campaign,
    Part(PartReply),
    Standing { member: bool },
    Refused { refusal: Refusal, text: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartReply {
    /// Go on at this offset.
    Next(u64),
    /// It is installed, or was not needed.
    Done(Vote),
}

/// Why a node did not take a request at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Refusal {
    /// The bytes make no sense.
    Malformed = 1,
    /// Another epoch.
    Epoch = 2,
    /// The request names another sender than the transport does.
    Sender = 3,
    /// The node is damaged or lost its log.
    Unfit = 4,
    /// It is stopping.
    Stopped = 5,
    /// It is not what the request takes it for.
    NotNow = 6,
}

pub(super) fn encode_request(request: &Request) -> Bytes {
    let mut out = Writer::default();
    out.u64(request.epoch);
    match &request.call {
        Call::Append(append) => write_append(out.u8(APPEND), append),
        Call::Vote(vote) => {
            out.u8(VOTE).vote(&vote.vote).maybe_log_id(vote.last_log_id.as_ref());
        }
        Call::PreVote { last_log_id } => {
            out.u8(PRE_VOTE).maybe_log_id(last_log_id.as_ref());
        }
        Call::Campaign { term } => {
            out.u8(CAMPAIGN).u64(*term);
        }
        Call::Part(part) => write_part(out.u8(PART), part),
        Call::Standing => {
            out.u8(STANDING);
        }
    }
    out.seal(Kind::Request, &[]).into()
}

pub(super) fn decode_request(bytes: &[u8]) -> Result<Request, FormatError> {
    let mut reader = Reader::new("request", format::open("request", Kind::Request, &[], bytes)?);
    let epoch = reader.u64("epoch")?;
    let call = match reader.u8("call")? {
        APPEND => Call::Append(read_append(&mut reader)?),
        VOTE => {
            let vote = reader.vote("vote")?;
            Call::Vote(VoteRequest::new(vote, reader.maybe_log_id("last log id")?))
        }
        PRE_VOTE => Call::PreVote { last_log_id: reader.maybe_log_id("last log id")? },
        CAMPAIGN => Call::Campaign { term: reader.u64("term")? },
        PART => Call::Part(read_part(&mut reader)?),
        STANDING => Call::Standing,
        other => return Err(reader.wrong("call", other, "calls are 1 to 6; upgrade this node")),
    };
    reader.end()?;
    Ok(Request { epoch, call })
}

pub(super) fn encode_reply(reply: &Reply) -> Bytes {
    let mut out = Writer::default();
    match reply {
        Reply::Append(append) => write_append_reply(out.u8(APPEND), append),
        Reply::Vote(vote) => {
            out.u8(VOTE).vote(&vote.vote).u8(u8::from(vote.vote_granted));
            out.maybe_log_id(vote.last_log_id.as_ref());
        }
        Reply::PreVote { granted } => {
            out.u8(PRE_VOTE).u8(u8::from(*granted));
        }
        Reply::Campaign => {
            out.u8(CAMPAIGN);
        }
        Reply::Part(PartReply::Next(offset)) => {
            out.u8(PART).u8(0).u64(*offset);
        }
        Reply::Part(PartReply::Done(vote)) => {
            out.u8(PART).u8(1).vote(vote);
        }
        Reply::Standing { member } => {
            out.u8(STANDING).u8(u8::from(*member));
        }
        Reply::Refused { refusal, text } => {
            let end = text.floor_char_boundary(TEXT_BYTES_MAX);
            out.u8(REFUSED).u8(*refusal as u8).bytes(&text.as_bytes()[..end]);
        }
    }
    out.seal(Kind::Reply, &[]).into()
}

pub(super) fn decode_reply(bytes: &[u8]) -> Result<Reply, FormatError> {
    let mut reader = Reader::new("reply", format::open("reply", Kind::Reply, &[], bytes)?);
    let reply = match reader.u8("call")? {
        APPEND => Reply::Append(read_append_reply(&mut reader)?),
        VOTE => {
            let (vote, granted) = (reader.vote("vote")?, reader.flag("granted")?);
            Reply::Vote(VoteResponse::new(vote, reader.maybe_log_id("last log id")?, granted))
        }
        PRE_VOTE => Reply::PreVote { granted: reader.flag("granted")? },
        CAMPAIGN => Reply::Campaign,
        PART if reader.flag("done")? => Reply::Part(PartReply::Done(reader.vote("vote")?)),
        PART => Reply::Part(PartReply::Next(reader.u64("offset")?)),
        STANDING => Reply::Standing { member: reader.flag("member")? },
        REFUSED => read_refusal(&mut reader)?,
        other => return Err(reader.wrong("call", other, "calls are 1 to 6 and 255")),
    };
    reader.end()?;
    Ok(reply)
}

fn write_append(out: &mut Writer, append: &AppendEntriesRequest<Types>) {
    out.vote(&append.vote).maybe_log_id(append.prev_log_id.as_ref());
    out.maybe_log_id(append.leader_commit.as_ref()).u64(append.entries.len() as u64);
    for entry in &append.entries {
        write_entry(out, entry);
    }
}

fn read_append(reader: &mut Reader<'_>) -> Result<AppendEntriesRequest<Types>, FormatError> {
    let vote = reader.vote("vote")?;
    if !vote.committed {
        return Err(reader.wrong("vote", vote, "only an elected leader appends"));
    }
    let prev_log_id = reader.maybe_log_id("previous log id")?;
    let leader_commit = reader.maybe_log_id("commit")?;
    let count = reader.u64("entries")?;
    reader.at_most("entries", count, STORE_ENTRIES_PER_APPEND_MAX)?;
    let mut entries = Vec::new();
    let mut next = prev_log_id.map_or(0, |previous| previous.index.saturating_add(1));
    for _ in 0..count {
        let entry = read_entry(reader)?;
        // openraft takes the order for granted.
        if entry.log_id.index != next {
            return Err(reader.wrong("index", entry.log_id.index, "entries have no gaps"));
        }
        next = next.saturating_add(1);
        entries.push(entry);
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

fn write_append_reply(out: &mut Writer, reply: &AppendEntriesResponse<u64>) {
    match reply {
        AppendEntriesResponse::Success => out.u8(0),
        AppendEntriesResponse::PartialSuccess(id) => out.u8(1).maybe_log_id(id.as_ref()),
        AppendEntriesResponse::Conflict => out.u8(2),
        AppendEntriesResponse::HigherVote(vote) => out.u8(3).vote(vote),
    };
}

fn read_append_reply(reader: &mut Reader<'_>) -> Result<AppendEntriesResponse<u64>, FormatError> {
    Ok(match reader.u8("result")? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(reader.maybe_log_id("matching")?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(reader.vote("vote")?),
        other => return Err(reader.wrong("result", other, "results are 0 to 3")),
    })
}

fn write_part(out: &mut Writer, part: &SnapshotPart) {
    out.vote(&part.vote).u64(part.transfer).maybe_log_id(part.last_log_id.as_ref());
    out.stored_membership(&part.membership).u64(part.offset).u64(part.total);
    out.raw(&part.digest).bytes(&part.bytes);
}

fn read_part(reader: &mut Reader<'_>) -> Result<SnapshotPart, FormatError> {
    Ok(SnapshotPart {
        vote: reader.vote("vote")?,
        transfer: reader.u64("transfer")?,
        last_log_id: reader.maybe_log_id("last log id")?,
        membership: reader.stored_membership("membership")?,
        offset: reader.u64("offset")?,
        total: reader.u64("total")?,
        digest: reader.digest("digest")?,
        bytes: reader.bytes("bytes", STORE_SNAPSHOT_PART_BYTES_MAX)?.to_vec(),
    })
}

fn read_refusal(reader: &mut Reader<'_>) -> Result<Reply, FormatError> {
    let refusal = match reader.u8("refusal")? {
        1 => Refusal::Malformed,
        2 => Refusal::Epoch,
        3 => Refusal::Sender,
        4 => Refusal::Unfit,
        5 => Refusal::Stopped,
        6 => Refusal::NotNow,
        other => return Err(reader.wrong("refusal", other, "refusals are 1 to 6")),
    };
    let text = String::from_utf8_lossy(reader.bytes("text", TEXT_BYTES_MAX)?).into_owned();
    Ok(Reply::Refused { refusal, text })
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload};

    use super::super::types::{Entry, Membership};
    use super::*;

    fn id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(3, 4), index)
    }

    fn append(first: u64, count: u64) -> AppendEntriesRequest<Types> {
        let entry = |index| Entry { log_id: id(index), payload: EntryPayload::Blank };
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 4),
            prev_log_id: first.checked_sub(1).map(id),
            entries: (first..first + count).map(entry).collect(),
            leader_commit: Some(id(1)),
        }
    }

    fn part() -> SnapshotPart {
        SnapshotPart {
            vote: Vote::new_committed(3, 4),
            transfer: 8,
            last_log_id: Some(id(9)),
            membership: StoredMembership::new(None, Membership::new(vec![[4].into()], ())),
            offset: 5,
            total: 10,
            digest: [7; 32],
            bytes: b"bytes".to_vec(),
        }
    }

    #[test]
    fn requests_come_back_as_they_went() {
        let calls = [
            Call::Append(append(0, 0)),
            Call::Append(append(0, 3)),
            Call::Append(append(10, STORE_ENTRIES_PER_APPEND_MAX)),
            Call::Vote(VoteRequest::new(Vote::new(5, 6), None)),
            Call::PreVote { last_log_id: Some(id(1)) },
            Call::Campaign { term: 7 },
            Call::Part(part()),
            Call::Standing,
        ];
        for call in calls {
            let request = Request { epoch: 12, call };
            let text = format!("{request:?}");
            let back = decode_request(&encode_request(&request)).unwrap();
            assert_eq!(format!("{back:?}"), text);
        }
    }

    /// docs/reference/store-log.md has this one.
    #[test]
    fn the_first_versions_bytes_stay() {
        let request = Request { epoch: 5, call: Call::PreVote { last_log_id: None } };
        let bytes = encode_request(&request);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0701517ae95d05000000000000000300");
    }

    #[test]
    fn replies_come_back_as_they_went() {
        let replies = [
            Reply::Append(AppendEntriesResponse::Success),
            Reply::Append(AppendEntriesResponse::PartialSuccess(Some(id(2)))),
            Reply::Append(AppendEntriesResponse::Conflict),
            Reply::Append(AppendEntriesResponse::HigherVote(Vote::new(9, 9))),
            Reply::Vote(VoteResponse::new(Vote::new(5, 6), Some(id(1)), true)),
            Reply::PreVote { granted: true },
            Reply::Campaign,
            Reply::Part(PartReply::Next(99)),
            Reply::Part(PartReply::Done(Vote::new(1, 2))),
            Reply::Standing { member: false },
            Reply::Refused { refusal: Refusal::Epoch, text: "no".into() },
        ];
        for reply in replies {
            let text = format!("{reply:?}");
            let back = decode_reply(&encode_reply(&reply)).unwrap();
            assert_eq!(format!("{back:?}"), text);
        }
        // A long reason is cut, at a character's end.
        let text = "\u{e4}".repeat(2000);
        let reply = encode_reply(&Reply::Refused { refusal: Refusal::Unfit, text });
        let Reply::Refused { text, .. } = decode_reply(&reply).unwrap() else { panic!() };
        assert_eq!(text.len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn a_request_is_refused_with_its_fault() {
        let sealed = |fill: &dyn Fn(&mut Writer)| {
            let mut out = Writer::default();
            out.u64(1);
            fill(&mut out);
            out.seal(Kind::Request, &[])
        };
        let of_append = |append: AppendEntriesRequest<Types>| {
            encode_request(&Request { epoch: 1, call: Call::Append(append) }).to_vec()
        };
        let mut gap = append(4, 3);
        gap.entries.remove(1);
        let mut early = append(4, 1);
        early.prev_log_id = Some(id(9));
        let candidate = AppendEntriesRequest { vote: Vote::new(3, 4), ..append(0, 0) };
        let whole = of_append(append(0, 2));
        let cases: [(Vec<u8>, &str); 10] = [
            (Vec::new(), "request: header needs 6 bytes"),
            (whole[..whole.len() - 1].to_vec(), "request: checksum is"),
            (encode_reply(&Reply::Campaign).to_vec(), "request: kind is 8, 7 was expected"),
            (
                sealed(&|out| {
                    out.u8(7);
                }),
                "request: call is 7: calls are 1 to 6; upgrade this node",
            ),
            (
                sealed(&|out| {
                    out.u8(STANDING).u8(0);
                }),
                "request: 1 bytes follow its end",
            ),
            (of_append(gap), "request: index is 6: entries have no gaps"),
            (of_append(early), "request: index is 4: entries have no gaps"),
            (of_append(candidate), "request: vote is T3-N4:uncommitted: only an elected leader"),
            (
                of_append(append(0, STORE_ENTRIES_PER_APPEND_MAX + 1)),
                "request: entries is 257, at most 256 is allowed",
            ),
            (
                sealed(&|out| {
                    let bytes = vec![0; STORE_SNAPSHOT_PART_BYTES_MAX + 1];
                    write_part(out.u8(PART), &SnapshotPart { bytes, ..part() });
                }),
                "request: bytes is 262145, at most 262144 is allowed",
            ),
        ];
        for (bytes, text) in cases {
            let error = decode_request(&bytes).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn a_reply_is_refused_with_its_fault() {
        let sealed = |bytes: &[u8]| Writer::default().raw(bytes).seal(Kind::Reply, &[]);
        let cases: [(&[u8], &str); 6] = [
            (&[], "reply: call needs 1 bytes, 0 are left: it was cut short"),
            (&[9], "reply: call is 9: calls are 1 to 6 and 255"),
            (&[APPEND, 4], "reply: result is 4: results are 0 to 3"),
            (&[PRE_VOTE, 2], "reply: granted is 2: only 0 and 1 have a meaning"),
            (&[REFUSED, 0], "reply: refusal is 0: refusals are 1 to 6"),
            (&[CAMPAIGN, 0], "reply: 1 bytes follow its end"),
        ];
        for (bytes, text) in cases {
            let error = decode_reply(&sealed(bytes)).unwrap_err().to_string();
            assert_eq!(error, text);
        }
    }
}
