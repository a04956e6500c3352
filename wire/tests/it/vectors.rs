//! Test vectors in the pages below `docs/reference`: the encoder must give the hex, the decoder the
//! meaning or the error's text.
//!
//! `UPDATE=1` rewrites what the encoder gives (hex) and what good vectors mean. An error's text is
//! only written where the file has none: it is part of what a person reads, so it is not changed by
//! accident.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// One vector of a file.
#[derive(Debug, Default)]
pub(crate) struct Vector {
    name: String,
    /// What it shows.
    note: String,
    /// Whose bytes they are, for streams.
    pub(crate) stream: String,
    /// What the bytes are, for messages.
    pub(crate) of: String,
    hex: String,
    /// In place of `hex`, for formats that are text.
    text: String,
    means: Vec<String>,
    error: Option<String>,
}

pub(crate) type Built = BTreeMap<&'static str, Vec<u8>>;

/// Checks a file below `docs/reference`: the encoder gives the hex, the decoder the meaning.
pub(crate) fn check(
    file: &str,
    built: &Built,
    read: impl Fn(&Vector, &[u8]) -> Result<Vec<String>, String>,
) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(file);
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
        let is_text = !vector.text.is_empty();
        let encoded = if is_text { utf8(bytes) } else { hex(bytes) };
        let known = if is_text { &mut vector.text } else { &mut vector.hex };
        if update {
            *known = encoded;
        } else {
            assert_eq!(*known, encoded, "{}: the encoder gives other bytes", vector.name);
        }
    }
    let bytes = match vector.text.is_empty() {
        true => unhex(&vector.hex),
        false => vector.text.clone().into_bytes(),
    };
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
            "of" => vector.of = value.into(),
            "text" => vector.text = value.into(),
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
        for (key, value) in [("stream", &vector.stream), ("of", &vector.of), ("text", &vector.text)]
        {
            if !value.is_empty() {
                writeln!(out, "{key}: {value}").unwrap();
            }
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

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0, "{hex} has an odd number of digits");
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn text(error: impl ToString) -> String {
    error.to_string()
}
