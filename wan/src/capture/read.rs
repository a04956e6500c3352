//! Reads recordings back, and looks for bytes that must not be in them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memchr::memmem;

use super::{
    CaptureError, FILE_HEADER_BYTES, LINKTYPE_RAW, MAGIC_MICROS, MAGIC_NANOS, RECORD_HEADER_BYTES,
};
use crate::limits::{CAPTURE_FLOWS_MAX, CAPTURE_NEEDLE_BYTES_MAX, CAPTURE_PACKET_BYTES_MAX};

/// Whether these bytes were recorded: within a packet, or at the seam of two payloads of one flow.
///
/// A text longer than a packet's payload can be spread over packets with protocol headers in between,
/// so a canary should be short and repeated. An empty file (no packets) contains nothing: check that
/// the recording holds packets before concluding anything from `false`.
pub fn contains(path: impl AsRef<Path>, needle: &[u8]) -> Result<bool, CaptureError> {
    if needle.is_empty() || needle.len() > CAPTURE_NEEDLE_BYTES_MAX {
        return Err(CaptureError::Needle { bytes: needle.len() });
    }
    let finder = memmem::Finder::new(needle);
    let mut tails: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for record in Reader::open(path)? {
        let record = record?;
        if finder.find(&record.packet).is_some() {
            return Ok(true);
        }
        let Some((flow, payload)) = record.flow_and_payload() else { continue };
        if tails.len() >= CAPTURE_FLOWS_MAX && !tails.contains_key(flow.as_slice()) {
            tails.clear();
        }
        let tail = tails.entry(flow).or_default();
        let seam = &payload[..payload.len().min(needle.len() - 1)];
        tail.extend_from_slice(seam);
        if finder.find(tail).is_some() {
            return Ok(true);
        }
        if seam.len() < payload.len() {
            tail.clear();
            tail.extend_from_slice(payload);
        }
        tail.drain(..tail.len().saturating_sub(needle.len() - 1));
    }
    Ok(false)
}

/// The records of a file, one after the other. After an error it ends.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
    units_per_s: u32,
    failed: bool,
}

/// A recorded packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was forwarded.
    pub at: SystemTime,
    /// The IP packet.
    pub packet: Vec<u8>,
}

impl Reader {
    /// Opens a file and checks its header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref().to_owned();
        let file = File::open(&path).map_err(|source| CaptureError::Io {
            what: "open",
            path: path.clone(),
            source,
        })?;
        let file = BufReader::new(file);
        let mut reader = Self { path, file, offset: 0, units_per_s: 1, failed: false };
        reader.read_file_header()?;
        Ok(reader)
    }

    fn read_file_header(&mut self) -> Result<(), CaptureError> {
        let mut header = [0; FILE_HEADER_BYTES];
        let got = self.fill(&mut header)?;
        if got < header.len() {
            let fix = "must be 24 bytes; the recording was cut short";
            return Err(self.wrong("file header", format!("{got} bytes"), fix));
        }
        self.units_per_s = match le_u32(&header, 0) {
            MAGIC_NANOS => 1_000_000_000,
            MAGIC_MICROS => 1_000_000,
            magic => {
                let fix =
                    "must be a little-endian classic pcap (0xa1b23c4d or 0xa1b2c3d4), not pcapng";
                return Err(self.wrong("magic", format!("{magic:#010x}"), fix));
            }
        };
        match le_u32(&header, 20) {
            LINKTYPE_RAW => Ok(()),
            linktype => {
                let fix = "must be 101 (LINKTYPE_RAW), as the relay and the router write it";
                Err(self.wrong("linktype", linktype.to_string(), fix))
            }
        }
    }

    fn read_record(&mut self) -> Result<Option<Record>, CaptureError> {
        let mut header = [0; RECORD_HEADER_BYTES];
        match self.fill(&mut header)? {
            0 => return Ok(None),
            RECORD_HEADER_BYTES => {}
            got => {
                let fix = "must be 16 bytes; flush or stop the recording before reading it";
                return Err(self.wrong("record header", format!("{got} bytes"), fix));
            }
        }
        let [seconds, units, bytes] = [0, 4, 8].map(|at| le_u32(&header, at));
        if bytes > CAPTURE_PACKET_BYTES_MAX {
            let fix = "must be at most 262144; the file is damaged";
            return Err(self.wrong("packet length", bytes.to_string(), fix));
        }
        if units >= self.units_per_s {
            let fix = "must be below one second; the file is damaged";
            return Err(self.wrong("fraction of a second", units.to_string(), fix));
        }
        let mut packet = vec![0; bytes as usize];
        let got = self.fill(&mut packet)?;
        if got < packet.len() {
            let fix =
                "is less than the record's length; flush or stop the recording before reading it";
            return Err(self.wrong("packet", format!("{got} of {bytes} bytes"), fix));
        }
        let nanos = u64::from(units) * u64::from(1_000_000_000 / self.units_per_s);
        let since = Duration::from_secs(seconds.into()) + Duration::from_nanos(nanos);
        Ok(Some(Record { at: UNIX_EPOCH + since, packet }))
    }

    /// Reads until the buffer is full or the file ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, CaptureError> {
        let mut got = 0;
        while got < buffer.len() {
            match self.file.read(&mut buffer[got..]) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(CaptureError::Io { what: "read", path: self.path.clone(), source });
                }
            }
        }
        self.offset += got as u64;
        Ok(got)
    }

    fn wrong(&self, field: &str, value: String, fix: &'static str) -> CaptureError {
        let field = format!("{field} before offset {}", self.offset);
        CaptureError::Format { path: self.path.clone(), field, value, fix }
    }
}

impl Iterator for Reader {
    type Item = Result<Record, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = self.read_record().transpose();
        self.failed = matches!(record, Some(Err(_)));
        record
    }
}

impl Record {
    /// The payload of a UDP or TCP packet.
    pub fn payload(&self) -> Option<&[u8]> {
        self.flow_and_payload().map(|(_, payload)| payload)
    }

    /// Protocol, addresses and ports as bytes, and what TCP or UDP carries.
    fn flow_and_payload(&self) -> Option<(Vec<u8>, &[u8])> {
        let packet = self.packet.as_slice();
        let (protocol, addresses, transport) = match packet.first()? >> 4 {
            4 => {
                let header_bytes = usize::from(packet[0] & 0x0f) * 4;
                (*packet.get(9)?, packet.get(12..20)?, packet.get(header_bytes..)?)
            }
            6 => (*packet.get(6)?, packet.get(8..40)?, packet.get(40..)?),
            _ => return None,
        };
        let payload = match protocol {
            6 => transport.get(usize::from(transport.get(12)? >> 4) * 4..)?,
            17 => transport.get(8..)?,
            _ => return None,
        };
        Some(([&[protocol], addresses, transport.get(..4)?].concat(), payload))
    }
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests;
