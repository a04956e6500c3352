//! Writes packets into a pcap file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{CaptureError, LINKTYPE_RAW, MAGIC_NANOS, RECORD_HEADER_BYTES};
use crate::limits::{CAPTURE_BYTES_MAX, CAPTURE_PACKET_BYTES_MAX};

/// What a recording holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Packets in the file.
    pub packets: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Packets that passed but are not in the file, since it reached its limit or could not be written.
    /// Who draws conclusions from an absence checks that this is 0.
    pub skipped_packets: u64,
}

/// A file that packets are being recorded into.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    file: BufWriter<File>,
    recording: Recording,
    file_bytes_max: u64,
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> Result<Self, CaptureError> {
        Self::create_up_to(path, CAPTURE_BYTES_MAX)
    }

    pub(super) fn create_up_to(path: &Path, file_bytes_max: u64) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Io { what: "create", path: path.to_owned(), source };
        let mut file = BufWriter::new(File::create(path).map_err(failed)?);
        let header = file_header();
        file.write_all(&header).map_err(failed)?;
        let recording = Recording { file_bytes: header.len() as u64, ..Recording::default() };
        Ok(Self { path: path.to_owned(), file, recording, file_bytes_max })
    }

    /// Records a datagram under synthesised IP and UDP headers.
    pub(crate) fn record_udp(
        &mut self,
        at: SystemTime,
        source: SocketAddr,
        target: SocketAddr,
        datagram: &[u8],
    ) {
        let headers = udp_headers(source, target, datagram);
        self.record_parts(at, &[&headers, datagram]);
    }

    /// Records an IP packet as it is.
    pub(crate) fn record_ip(&mut self, at: SystemTime, packet: &[u8]) {
        self.record_parts(at, &[packet]);
    }

    fn record_parts(&mut self, at: SystemTime, parts: &[&[u8]]) {
        let packet_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let record_bytes = (RECORD_HEADER_BYTES + packet_bytes) as u64;
        if self.recording.file_bytes + record_bytes > self.file_bytes_max {
            self.recording.skipped_packets += 1;
            return;
        }
        if let Err(error) = self.write_record(at, packet_bytes, parts) {
            // Half a record may be in the file: nothing after it could be read.
            tracing::warn!(path = %self.path.display(), %error, "the recording stops");
            self.file_bytes_max = 0;
            self.recording.skipped_packets += 1;
            return;
        }
        self.recording.packets += 1;
        self.recording.file_bytes += record_bytes;
    }

    fn write_record(&mut self, at: SystemTime, bytes: usize, parts: &[&[u8]]) -> io::Result<()> {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        // 32 bits of seconds last until 2106; pcap has no more.
        let fields = [since.as_secs() as u32, since.subsec_nanos(), bytes as u32, bytes as u32];
        for field in fields {
            self.file.write_all(&field.to_le_bytes())?;
        }
        parts.iter().try_for_each(|part| self.file.write_all(part))
    }

    pub(crate) fn flush(&mut self) -> Result<Recording, CaptureError> {
        let path = &self.path;
        self.file.flush().map_err(|source| CaptureError::Io {
            what: "write",
            path: path.clone(),
            source,
        })?;
        Ok(self.recording)
    }

    pub(crate) fn finish(mut self) -> Result<Recording, CaptureError> {
        self.flush()
    }
}

fn file_header() -> Vec<u8> {
    let mut header = Vec::with_capacity(super::FILE_HEADER_BYTES);
    header.extend(MAGIC_NANOS.to_le_bytes());
    header.extend(2_u16.to_le_bytes()); // version 2.4
    header.extend(4_u16.to_le_bytes());
    header.extend([0; 8]); // time zone and accuracy: always zero
    header.extend(CAPTURE_PACKET_BYTES_MAX.to_le_bytes());
    header.extend(LINKTYPE_RAW.to_le_bytes());
    header
}

/// IP and UDP headers of a datagram. Of mixed families, both are written as IPv6 (RFC 4291 §2.5.5.2).
fn udp_headers(source: SocketAddr, target: SocketAddr, datagram: &[u8]) -> Vec<u8> {
    const UDP_HEADER_BYTES: usize = 8;
    let udp_bytes = (UDP_HEADER_BYTES + datagram.len()) as u16;
    let (mut headers, pseudo) = match (source.ip(), target.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let addresses = [source.octets(), target.octets()].concat();
            (ipv4_header(&addresses, udp_bytes), addresses)
        }
        (source, target) => {
            let addresses = [to_v6(source).octets(), to_v6(target).octets()].concat();
            (ipv6_header(&addresses, udp_bytes), addresses)
        }
    };
    let mut udp = Vec::with_capacity(UDP_HEADER_BYTES);
    for field in [source.port(), target.port(), udp_bytes, 0] {
        udp.extend(field.to_be_bytes());
    }
    let words = [u16::from(IPPROTO_UDP), udp_bytes].map(u16::to_be_bytes).concat();
    let sum = internet_checksum(&[&pseudo, &words, &udp, datagram]);
    // RFC 768: a computed zero is sent as all ones, since zero means none.
    udp[6..8].copy_from_slice(&if sum == 0 { [0xff; 2] } else { sum.to_be_bytes() });
    headers.extend(udp);
    headers
}

const IPPROTO_UDP: u8 = 17;
const HOPS: u8 = 64;

fn ipv4_header(addresses: &[u8], payload_bytes: u16) -> Vec<u8> {
    const HEADER_BYTES: u16 = 20;
    let mut header = vec![0x45, 0];
    // The largest IPv6 datagram would not fit here, but it cannot come between two IPv4 addresses.
    header.extend(payload_bytes.saturating_add(HEADER_BYTES).to_be_bytes());
    header.extend([0, 0, 0x40, 0, HOPS, IPPROTO_UDP, 0, 0]); // don't fragment
    header.extend(addresses);
    let sum = internet_checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn ipv6_header(addresses: &[u8], payload_bytes: u16) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(payload_bytes.to_be_bytes());
    header.extend([IPPROTO_UDP, HOPS]);
    header.extend(addresses);
    header
}

const fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// RFC 1071. Every part but the last must have an even length.
fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
