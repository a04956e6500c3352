//! The test vectors of `docs/reference/tunnel-vectors/`: the encoder must give the hex, the decoder
//! the meaning or the error's text.
//!
//! `UPDATE=1` rewrites what the encoder gives (hex) and what good vectors mean. An error's text is
//! only written where the file has none: it is part of what a person reads, so it is not changed by
//! accident.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use bytes::Bytes;
use http::Method;
use wire::tunnel::{ConnectionId, Datagram, FrameDecoder, FrameOrder, StreamReset, varint};

use super::{built, show};

#[test]
fn streams() {
    check_file("streams.txt", &built::streams(), read_stream);
}

#[test]
fn bad_streams() {
    check_file("bad-streams.txt", &built::bad_streams(), read_stream);
}

#[test]
fn varints() {
    check_file("varints.txt", &built::varints(), |_, bytes| {
        let (value, length) = varint::decode(bytes).ok_or("the bytes end within the integer")?;
        Ok(vec![format!("{value} in {length} bytes")])
    });
}

#[test]
fn datagrams() {
    check_file("datagrams.txt", &built::datagrams(), |_, bytes| {
        let datagram = Datagram::decode(Bytes::copy_from_slice(bytes)).map_err(text)?;
        let payload = datagram.payload.escape_ascii();
        Ok(vec![format!("flow = {}", datagram.flow), format!("payload = \"{payload}\"")])
    });
}

#[test]
fn connection_ids() {
    check_file("connection-ids.txt", &built::connection_ids(), |_, bytes| {
        let id = ConnectionId::decode(bytes).map_err(text)?;
        assert_eq!(id.to_bytes(), bytes);
        Ok(vec![
            format!("rotation = {}", id.rotation()),
            format!("worker = {}", id.worker()),
            format!("server = {}", hex(&id.server())),
        ])
    });
}

/// Here the hex is the QUIC application error code as RESET_STREAM has it: a varint.
#[test]
fn resets() {
    check_file("resets.txt", &built::resets(), |_, bytes| {
        let (packed, _) = varint::decode(bytes).ok_or("the bytes end within the code")?;
        Ok(vec![StreamReset::unpack(packed).to_string()])
    });
}

/// Reads one direction of a stream and its FIN.
fn read_stream(vector: &Vector, bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut order = match &*vector.stream {
        "frames" => None,
        "control" => Some(FrameOrder::control()),
        "initiator" => Some(FrameOrder::initiator()),
        "acceptor tcp" => Some(FrameOrder::acceptor_tcp()),
        other => {
            let method = other.strip_prefix("acceptor http ").expect("stream: is of a known kind");
            Some(FrameOrder::acceptor_http(&method.parse::<Method>().unwrap()))
        }
    };
    let mut decoder = FrameDecoder::new();
    decoder.push(Bytes::copy_from_slice(bytes));
    let mut lines = Vec::new();
    while let Some(frame) = decoder.next().map_err(text)? {
        if let Some(order) = &mut order {
            order.check(&frame).map_err(text)?;
        }
        lines.extend(show::frame(&frame));
    }
    decoder.finish().map_err(text)?;
    match order {
        // The control stream does not end.
        Some(order) if vector.stream != "control" => order.finish().map_err(text)?,
        _ => {}
    }
    Ok(lines)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// One vector of a file.
#[derive(Debug, Default)]
struct Vector {
    name: String,
    /// What it shows.
    note: String,
    /// Whose bytes they are, for streams.
    stream: String,
    hex: String,
    means: Vec<String>,
    error: Option<String>,
}

type Built = BTreeMap<&'static str, Vec<u8>>;

fn check_file(
    file: &str,
    built: &Built,
    read: impl Fn(&Vector, &[u8]) -> Result<Vec<String>, String>,
) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/tunnel-vectors");
    let path = path.join(file);
    let content = std::fs::read_to_string(&path).unwrap();
    let (preamble, mut vectors) = parse(&content);
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    for vector in &mut vectors {
        check_vector(vector, built, update, &read);
    }
    for name in built.keys() {
        assert!(vectors.iter().any(|vector| vector.name == *name), "{file} lacks vector {name}");
    }
    if update {
        std::fs::write(&path, print(&preamble, &vectors)).unwrap();
    } else {
        assert_eq!(print(&preamble, &vectors), content, "{file} is not in its usual form");
    }
}

fn check_vector(
    vector: &mut Vector,
    built: &Built,
    update: bool,
    read: impl Fn(&Vector, &[u8]) -> Result<Vec<String>, String>,
) {
    if let Some(bytes) = built.get(&*vector.name) {
        let encoded = hex(bytes);
        if update {
            vector.hex = encoded;
        } else {
            assert_eq!(vector.hex, encoded, "{}: the encoder gives other bytes", vector.name);
        }
    }
    let bytes = unhex(&vector.hex);
    match (read(vector, &bytes), &vector.error) {
        (Ok(means), None) if update => vector.means = means,
        (Ok(means), None) => assert_eq!(means, vector.means, "{}", vector.name),
        (Err(error), Some(known)) if update && known.is_empty() => vector.error = Some(error),
        (Err(error), Some(known)) => assert_eq!(&error, known, "{}", vector.name),
        (Ok(means), Some(_)) => panic!("{} is accepted: {means:?}", vector.name),
        (Err(error), None) => panic!("{} is refused: {error}", vector.name),
    }
}

/// Blocks are separated by empty lines and begin with `vector:`; what stands before is a preamble.
fn parse(content: &str) -> (String, Vec<Vector>) {
    let mut blocks = content.split("\n\n");
    let preamble = blocks.next().unwrap().to_owned();
    (preamble, blocks.filter(|block| !block.trim().is_empty()).map(parse_vector).collect())
}

fn parse_vector(block: &str) -> Vector {
    let mut vector = Vector::default();
    for line in block.trim_end().lines() {
        let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("no key in {line:?}"));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match key {
            "vector" => vector.name = value.into(),
            "note" => vector.note = value.into(),
            "stream" => vector.stream = value.into(),
            "hex" => vector.hex.push_str(&value.replace(' ', "")),
            "means" => vector.means.push(value.into()),
            "error" => vector.error = Some(value.into()),
            _ => panic!("unknown key in {line:?}"),
        }
    }
    vector
}

fn print(preamble: &str, vectors: &[Vector]) -> String {
    let mut out = preamble.trim_end().to_owned() + "\n";
    for vector in vectors {
        write!(out, "\nvector: {}\nnote: {}\n", vector.name, vector.note).unwrap();
        if !vector.stream.is_empty() {
            writeln!(out, "stream: {}", vector.stream).unwrap();
        }
        for line in vector.hex.as_bytes().chunks(64) {
            writeln!(out, "hex: {}", std::str::from_utf8(line).unwrap()).unwrap();
        }
        for line in &vector.means {
            writeln!(out, "means: {line}").unwrap();
        }
        if let Some(error) = &vector.error {
            writeln!(out, "error: {error}").unwrap();
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0, "{hex} has an odd number of digits");
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}
