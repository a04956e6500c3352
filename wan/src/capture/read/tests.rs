//! What is written can be read, and what is damaged is named.

use std::net::SocketAddr;

use super::super::Recorder;
use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn recorded(packets: &[(&str, &str, &[u8])]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wan.pcap");
    let mut recorder = Recorder::create(&path).unwrap();
    let at = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
    for (source, target, datagram) in packets {
        recorder.record_udp(at, addr(source), addr(target), datagram);
    }
    let recording = recorder.finish().unwrap();
    assert_eq!(recording.packets, packets.len() as u64);
    assert_eq!(recording.file_bytes, std::fs::metadata(&path).unwrap().len());
    assert_eq!(recording.skipped_packets, 0);
    (folder, path)
}

#[test]
fn an_ipv4_record_is_byte_for_byte_what_a_capture_tool_expects() {
    let (_folder, path) = recorded(&[("127.0.0.1:4660", "127.0.0.1:8443", b"abc")]);
    let bytes = std::fs::read(path).unwrap();
    let file_header: &[u8] =
        &[0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0];
    assert_eq!(&bytes[..24], file_header);
    assert_eq!(&bytes[24..28], 1_700_000_000_u32.to_le_bytes());
    assert_eq!(&bytes[28..32], 123_456_789_u32.to_le_bytes());
    assert_eq!(&bytes[32..40], [31, 0, 0, 0, 31, 0, 0, 0]);
    let ip: &[u8] =
        &[0x45, 0, 0, 31, 0, 0, 0x40, 0, 64, 17, 0x3c, 0xcc, 127, 0, 0, 1, 127, 0, 0, 1];
    assert_eq!(&bytes[40..60], ip);
    // Checksum by hand: 7f00+1+7f00+1 + 11 + b + 1234+20fb+b + 6162+6300 = 1f6 5 5 ...: see `checksums_hold`.
    assert_eq!(&bytes[60..66], [0x12, 0x34, 0x20, 0xfb, 0, 11]);
    assert_eq!(&bytes[68..], b"abc");
}

#[test]
fn checksums_hold() {
    fn sum(bytes: &[u8]) -> u32 {
        let mut sum = bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0)))
            .sum::<u32>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum
    }
    let (_folder, path) = recorded(&[
        ("127.0.0.1:4660", "127.0.0.1:8443", b"odd"),
        ("[::1]:4660", "[::1]:8443", b"even"),
        ("127.0.0.1:4660", "[::1]:8443", b""),
    ]);
    let packets: Vec<Vec<u8>> =
        Reader::open(path).unwrap().map(|record| record.unwrap().packet).collect();
    // A receiver sums a header or a pseudo header with its checksum to all ones (RFC 1071).
    assert_eq!(sum(&packets[0][..20]), 0xffff);
    for packet in packets {
        let (addresses, udp) = if packet[0] >> 4 == 4 {
            (&packet[12..20], &packet[20..])
        } else {
            (&packet[8..40], &packet[40..])
        };
        let pseudo = [addresses, &[0, 17], &(udp.len() as u16).to_be_bytes(), udp].concat();
        assert_eq!(sum(&pseudo), 0xffff, "{packet:02x?}");
    }
}

#[test]
fn records_come_back_with_time_and_payload() {
    let (_folder, path) = recorded(&[
        ("127.0.0.1:1", "127.0.0.1:2", b"first"),
        ("[::1]:1", "[::1]:2", b"second"),
        ("127.0.0.1:1", "[::1]:2", &[7; 65_507]),
    ]);
    let records: Vec<Record> = Reader::open(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(records[0].payload().unwrap(), b"first");
    assert_eq!(records[1].payload().unwrap(), b"second");
    assert_eq!(records[2].payload().unwrap(), [7; 65_507]);
    assert_eq!(records[0].at, UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789));
}

#[test]
fn contains_finds_within_packets_and_across_a_seam_of_one_flow_only() {
    let (west, east) = ("127.0.0.1:1", "127.0.0.1:2");
    let (_folder, path) = recorded(&[
        (west, east, b"..canary.."),
        (west, east, b"..spl"),
        (east, west, b"it-here"),
        (west, east, b"it-"),
        (west, east, b"three"),
    ]);
    for (needle, found) in [
        (&b"canary"[..], true),
        (b"Canary", false),
        (b"split", true),
        (b"split-three", true),
        (b"split-here", false),
        (b"canary....split-three.", false),
        (b"e", true),
    ] {
        let text = String::from_utf8_lossy(needle);
        assert_eq!(contains(&path, needle).unwrap(), found, "{text}");
    }
}

#[test]
fn a_full_recording_counts_what_it_skips() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wan.pcap");
    let mut recorder = Recorder::create_up_to(&path, 24 + 2 * (16 + 28 + 10)).unwrap();
    for _ in 0..5 {
        let (source, target) = (addr("127.0.0.1:1"), addr("127.0.0.1:2"));
        recorder.record_udp(UNIX_EPOCH, source, target, b"0123456789");
    }
    let recording = recorder.finish().unwrap();
    assert_eq!((recording.packets, recording.skipped_packets), (2, 3));
    assert_eq!(Reader::open(&path).unwrap().filter(Result::is_ok).count(), 2);
}

#[test]
fn each_damaged_file_names_field_value_and_fix() {
    let (folder, path) = recorded(&[("127.0.0.1:1", "127.0.0.1:2", b"payload")]);
    let good = std::fs::read(&path).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let table = [
        (Vec::new(), "file header before offset 0 = 0 bytes: must be 24 bytes"),
        (good[..23].to_vec(), "file header before offset 23 = 23 bytes: must be 24 bytes"),
        (
            with(0, &[0x0a, 0x0d, 0x0d, 0x0a]),
            "magic before offset 24 = 0x0a0d0d0a: must be a little-endian classic pcap",
        ),
        (with(20, &[1]), "linktype before offset 24 = 1: must be 101 (LINKTYPE_RAW)"),
        (
            good[..30].to_vec(),
            "record header before offset 30 = 6 bytes: must be 16 bytes; flush or stop the recording",
        ),
        (
            with(32, &[0xff; 4]),
            "packet length before offset 40 = 4294967295: must be at most 262144; the file is damaged",
        ),
        (
            with(28, &[0xff; 4]),
            "fraction of a second before offset 40 = 4294967295: must be below one second",
        ),
        (
            good[..good.len() - 1].to_vec(),
            "packet before offset 74 = 34 of 35 bytes: is less than the record's length",
        ),
    ];
    for (bytes, text) in table {
        let path = folder.path().join("bad.pcap");
        std::fs::write(&path, bytes).unwrap();
        let error = contains(&path, b"x").unwrap_err().to_string();
        assert!(error.contains("bad.pcap: ") && error.contains(text), "{error:?} has not {text:?}");
    }
    let missing = contains(folder.path().join("missing"), b"x").unwrap_err().to_string();
    assert!(missing.starts_with("failed to open capture file"), "{missing}");
    for needle in [&[][..], &[0; 4097]] {
        let error = contains(&path, needle).unwrap_err().to_string();
        assert_eq!(error, format!("needle = {} bytes: must be 1 to 4096 bytes long", needle.len()));
    }
    assert!(Recorder::create(&folder.path().join("no/folder")).is_err());
}
