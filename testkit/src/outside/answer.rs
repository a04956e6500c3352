//! One connection of an outside client, and how it reads an answer (RFC 9112).

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::{Failure, Miss, Target};

/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an answer that are shown when it is not the right one.
const SHOWN_BYTES_MAX: usize = 300;

/// A connection that may stand, and what was asked on it.
#[derive(Debug, Default)]
pub(super) struct Connection {
    stream: Option<TcpStream>,
    asked: usize,
}

impl Connection {
    /// One request; the whole body of its answer.
    pub(super) fn ask(&mut self, target: &Target) -> Result<String, Miss> {
        let due = Instant::now() + target.limit;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                self.asked = 0;
                connect(target)?
            }
        };
        self.asked += 1;
        let last = self.asked >= target.per_connection;
        let end = if last { "Connection: close\r\n" } else { "" };
        let Target { host, path, .. } = target;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{end}\r\n");
        stream.write_all(request.as_bytes()).map_err(|error| lost(&error, false))?;
        let answer = Reader { stream: &mut stream, due, bytes: Vec::new() }.answer()?;
        if !last && !answer.closes {
            self.stream = Some(stream);
        }
        judge(target, answer)
    }
}

fn connect(target: &Target) -> Result<TcpStream, Miss> {
    let connected = TcpStream::connect_timeout(&target.address, target.limit);
    let stream = connected.map_err(|error| match error.kind() {
        ErrorKind::TimedOut => miss(Failure::TimedOut, error.to_string()),
        _ => miss(Failure::Refused, error.to_string()),
    })?;
    stream.set_nodelay(true).map_err(|error| lost(&error, false))?;
    Ok(stream)
}

/// An answer that came to its end.
struct Answer {
    head: String,
    body: Vec<u8>,
    closes: bool,
}

fn judge(target: &Target, answer: Answer) -> Result<String, Miss> {
    let text = String::from_utf8_lossy(&answer.body).trim_end().to_owned();
    let shown = || {
        let bytes = [answer.head.as_bytes(), b"\r\n", text.as_bytes()].concat();
        String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]).into_owned()
    };
    if answer.head.split(' ').nth(1) != Some("200") {
        return Err(miss(Failure::Status, shown()));
    }
    match &target.body {
        Some(wanted) if *wanted != text => Err(miss(Failure::Wrong, shown())),
        _ => Ok(text),
    }
}

/// Reads one answer from the beginning of what comes.
struct Reader<'a> {
    stream: &'a mut TcpStream,
    due: Instant,
    bytes: Vec<u8>,
}

impl Reader<'_> {
    fn answer(mut self) -> Result<Answer, Miss> {
        let (head, mut begin) = loop {
            if let Some(end) = find(&self.bytes, b"\r\n\r\n") {
                break (String::from_utf8_lossy(&self.bytes[..end]).into_owned(), end + 4);
            }
            if self.bytes.len() > HEAD_BYTES_MAX {
                return Err(miss(Failure::Wrong, "a head without an end"));
            }
            self.more()?;
        };
        if !head.starts_with("HTTP/1.1 ") {
            return Err(miss(Failure::Wrong, head));
        }
        let closes = field(&head, "connection").is_some_and(|value| value.contains("close"));
        let body = match (field(&head, "transfer-encoding"), field(&head, "content-length")) {
            (Some(_), _) => self.chunks(&mut begin)?,
            (None, Some(length)) => {
                let length = length.parse().map_err(|_| miss(Failure::Wrong, head.clone()))?;
                self.exactly(begin, length)?
            }
            // Such a body ends where the connection does, whole or not.
            (None, None) => return Err(miss(Failure::Wrong, format!("no length: {head}"))),
        };
        Ok(Answer { head, body, closes })
    }

    fn chunks(&mut self, at: &mut usize) -> Result<Vec<u8>, Miss> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                match find(&self.bytes[*at..], b"\r\n") {
                    Some(length) => break self.exactly(*at, length)?,
                    None => self.more()?,
                }
            };
            *at += line.len() + 2;
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16);
            let size = size.map_err(|_| miss(Failure::Wrong, format!("a chunk of {line:?}")))?;
            // An empty chunk, and no trailers: what is called here has none.
            let data = self.exactly(*at, size + 2)?;
            *at += data.len();
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&data[..size]);
        }
    }

    fn exactly(&mut self, from: usize, length: usize) -> Result<Vec<u8>, Miss> {
        while self.bytes.len() < from + length {
            self.more()?;
        }
        Ok(self.bytes[from..from + length].to_vec())
    }

    fn more(&mut self) -> Result<(), Miss> {
        let begun = !self.bytes.is_empty();
        let left = self.due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(miss(Failure::TimedOut, format!("{} bytes came", self.bytes.len())));
        }
        self.stream.set_read_timeout(Some(left)).map_err(|error| lost(&error, begun))?;
        let mut part = [0; 16 * 1024];
        match self.stream.read(&mut part) {
            Ok(0) => Err(ended(begun, "the connection was closed".into())),
            Ok(length) => {
                self.bytes.extend_from_slice(&part[..length]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(lost(&error, begun)),
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A field's value, in lower case.
fn field(head: &str, name: &str) -> Option<String> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut found = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.trim().to_ascii_lowercase())
}

fn lost(error: &io::Error, begun: bool) -> Miss {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => miss(Failure::TimedOut, error.to_string()),
        _ => ended(begun, error.to_string()),
    }
}

fn ended(begun: bool, text: String) -> Miss {
    miss(if begun { Failure::Truncated } else { Failure::Reset }, text)
}

fn miss(failure: Failure, text: impl Into<String>) -> Miss {
    Miss { failure, text: text.into() }
}
