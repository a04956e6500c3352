//! The access log: exactly one JSON line per request or connection at the source, and one at the
//! destination, whether it succeeded or not.
//!
//! A [`LogEntry`] writes itself when it is dropped, so no way out of a request can miss it. Lines
//! are made and written by a thread of their own behind a bounded queue; a full queue drops the
//! record and counts it, and never makes a worker wait.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode};
use model::{ClusterName, RequestId, ServiceName, SpiffeId, Transport};

use crate::error::{Kind, ProxyError};
use crate::json::JsonLine;
use crate::limits::{ACCESS_LOG_QUEUE_MAX, ACCESS_LOG_VALUE_CHARS_MAX};
use crate::metrics::Shard;
use crate::respond::Answer;
use crate::sent::SentExchange;

/// Lines that are written together while more are waiting.
const RECORDS_PER_FLUSH: usize = 256;

/// The path that stands for the process's own standard output.
pub const STDOUT: &str = "/dev/stdout";

/// On which side of the tunnel a record was made. A request served locally has one record only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Source,
    Destination,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Http1,
    Http2,
    /// HTTP over the tunnel, seen from the destination.
    TunnelHttp,
    Tcp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "http/2",
            Self::TunnelHttp => "http",
            Self::Tcp => "tcp",
        }
    }

    pub fn is_http(self) -> bool {
        self != Self::Tcp
    }
}

/// Everything that is known of one request or connection; fields fill up on its way.
#[derive(Debug)]
pub struct Record {
    pub role: Role,
    pub protocol: Protocol,
    pub started: SystemTime,
    pub duration: Duration,
    pub client: SocketAddr,
    pub method: Option<Method>,
    /// As long as [`cut`] leaves it.
    pub authority: String,
    /// Without the query, which may hold secrets; as long as [`cut`] leaves it.
    pub path: String,
    pub status: Option<StatusCode>,
    pub failure: Option<Failure>,
    pub route: Option<Arc<str>>,
    pub service: Option<(ServiceName, u16)>,
    pub upstream: Option<SocketAddr>,
    pub source_cluster: Option<ClusterName>,
    pub destination_cluster: Option<ClusterName>,
    /// What carries the exchange between clusters: the attempt that was made last.
    pub transport: Option<Transport>,
    pub source: Option<SpiffeId>,
    pub unattested: bool,
    pub request_id: Option<RequestId>,
    pub trace_id: Option<[u8; 16]>,
    pub attempts: u32,
    /// From the client's side and to it.
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Counts it as long as it is at another cluster; no line has it.
    pub away: Option<SentExchange>,
}

/// Why it was not served, or not to its end.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    pub detail: String,
}

impl Record {
    pub fn new(role: Role, protocol: Protocol, client: SocketAddr) -> Self {
        Self {
            role,
            protocol,
            started: SystemTime::now(),
            duration: Duration::ZERO,
            client,
            method: None,
            authority: String::new(),
            path: String::new(),
            status: None,
            failure: None,
            route: None,
            service: None,
            upstream: None,
            source_cluster: None,
            destination_cluster: None,
            transport: None,
            source: None,
            unattested: false,
            request_id: None,
            trace_id: None,
            attempts: 0,
            received_bytes: 0,
            sent_bytes: 0,
            away: None,
        }
    }

    /// What clients, metrics and this line say of the failure.
    pub fn answer(&self) -> Option<Answer> {
        self.failure.as_ref().map(|failure| Answer::to(failure.kind))
    }

    fn write(&self, line: &mut JsonLine) {
        line.text("start_time", &timestamp(self.started));
        line.number("duration_ms", self.duration.as_millis() as u64);
        line.text("role", self.role.as_str());
        line.text("protocol", self.protocol.as_str());
        if self.protocol.is_http() {
            line.text("method", self.method.as_ref().map_or("", Method::as_str));
            line.text("authority", &self.authority);
            line.text("path", &self.path);
            line.optional_number("status", self.status.map(|status| status.as_u16().into()));
        }
        let answer = self.answer();
        line.text("response_flags", answer.map_or("-", |answer| answer.flag));
        line.optional("fed_code", answer.and_then(|answer| answer.code));
        line.optional("failure", self.failure.as_ref().map(|failure| &failure.detail));
        line.number("bytes_received", self.received_bytes);
        line.number("bytes_sent", self.sent_bytes);
        line.text("client", &self.client.to_string());
        line.optional("route", self.route.as_ref());
        line.optional(
            "service",
            self.service.as_ref().map(|(name, port)| format!("{name}:{port}")),
        );
        line.optional("upstream", self.upstream);
        line.optional("source_cluster", self.source_cluster.as_ref());
        line.optional("destination_cluster", self.destination_cluster.as_ref());
        line.optional("transport", self.transport.map(Transport::as_str));
        line.optional("source_spiffe_id", self.source.as_ref());
        line.boolean("source_unattested", self.unattested);
        line.number("attempts", self.attempts.into());
        line.optional("request_id", self.request_id);
        line.optional("trace_id", self.trace_id.map(|id| crate::http::hex(&id)));
    }
}

/// What a record keeps of a text that a client chose: one character more than a line shows, so that
/// the line says that there was more.
pub fn cut(text: &str) -> String {
    text.chars().take(ACCESS_LOG_VALUE_CHARS_MAX + 1).collect()
}

fn timestamp(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(timestamp) => format!("{timestamp:.3}"),
        Err(_) => String::new(), // a clock beyond the year 9999
    }
}

/// A record in the making; dropping it writes it.
#[derive(Debug)]
pub struct LogEntry {
    /// `None` once written.
    record: Option<Box<Record>>,
    began: Instant,
    log: AccessLog,
    shard: Arc<Shard>,
    /// Somebody said how it ended; without that, the client went away.
    settled: bool,
}

impl LogEntry {
    pub fn begin(record: Record, log: &AccessLog, shard: &Arc<Shard>) -> Self {
        shard.exchange_began(record.protocol);
        let (log, shard) = (log.clone(), shard.clone());
        let record = Some(Box::new(record));
        Self { record, began: Instant::now(), log, shard, settled: false }
    }

    pub fn record(&mut self) -> &mut Record {
        self.record.as_mut().expect("a record is taken only by drop")
    }

    /// It was served to its end.
    pub fn succeed(&mut self) {
        self.settled = true;
    }

    /// It failed; the first failure stays, since later ones follow from it.
    pub fn fail(&mut self, error: &ProxyError) {
        self.settled = true;
        let cut_off = self.log.cutting_off.load(Ordering::Relaxed);
        let record = self.record();
        if record.failure.is_some() {
            return;
        }
        // Once the gateway cuts everything off, whatever fails fails because of that.
        let (kind, detail) = match cut_off {
            true => (Kind::Draining, "cut off by the end of the drain".to_owned()),
            false => (error.kind, cut(&error.detail)),
        };
        record.failure = Some(Failure { kind, detail });
    }
}

impl Drop for LogEntry {
    fn drop(&mut self) {
        if !self.settled {
            self.fail(&ProxyError::maybe_sent(Kind::ClientGone, "the client went away"));
        }
        let Some(mut record) = self.record.take() else { return };
        record.duration = self.began.elapsed();
        record.away = None;
        self.shard.exchange_ended(&record);
        self.log.push(record);
    }
}

/// The queue to the writer.
#[derive(Debug, Clone)]
pub struct AccessLog {
    queue: SyncSender<Option<Box<Record>>>,
    dropped: Arc<AtomicU64>,
    /// From now on, what ends without a word was ended by us.
    cutting_off: Arc<AtomicBool>,
}

/// The writer's thread.
#[derive(Debug)]
pub struct AccessLogWriter {
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl AccessLog {
    /// Opens the file for appending, or standard output, and starts the writer. A new file is for
    /// its owner and group: it says who asks for what.
    pub fn open(path: &Path) -> io::Result<(Self, AccessLogWriter)> {
        let sink: Box<dyn Write + Send> = if path == Path::new(STDOUT) {
            Box::new(io::stdout()) // may be a socket, which cannot be opened by its path
        } else {
            Box::new(OpenOptions::new().create(true).append(true).mode(0o640).open(path)?)
        };
        Self::start(sink)
    }

    fn start(sink: Box<dyn Write + Send>) -> io::Result<(Self, AccessLogWriter)> {
        let (queue, records) = sync_channel(ACCESS_LOG_QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("fg-access-log".into())
            .spawn(move || write_records(&records, sink))?;
        let log = Self { queue, dropped: Arc::default(), cutting_off: Arc::default() };
        Ok((log, AccessLogWriter { thread: Mutex::new(Some(thread)) }))
    }

    fn push(&self, record: Box<Record>) {
        if self.queue.try_send(Some(record)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The gateway stops: whatever is still in progress is cut off.
    pub fn cut_off(&self) {
        self.cutting_off.store(true, Ordering::Relaxed);
    }

    /// Records that were not written because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl AccessLogWriter {
    /// Writes what is queued, and ends; what comes later is dropped.
    pub fn finish(&self, log: &AccessLog) {
        // Blocks while the queue is full; fails only if the writer has ended already.
        let _ = log.queue.send(None);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the access log's writer panicked");
        }
    }
}

fn write_records(records: &Receiver<Option<Box<Record>>>, sink: Box<dyn Write + Send>) {
    let mut sink = BufWriter::new(sink);
    let mut failing = false;
    let mut open = true;
    while open && let Ok(Some(record)) = records.recv() {
        let mut written = write_record(&record, &mut sink);
        for _ in 0..RECORDS_PER_FLUSH {
            match records.try_recv() {
                Ok(Some(record)) => written = write_record(&record, &mut sink),
                Err(TryRecvError::Empty) => break,
                Ok(None) | Err(TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        // The last error tells as much as the first; what counts is that the log says so once.
        match written.and_then(|()| sink.flush()) {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                tracing::error!(%error, "the access log cannot be written");
                failing = true;
            }
            Err(_) => {}
        }
    }
}

fn write_record(record: &Record, sink: &mut impl Write) -> io::Result<()> {
    let mut line = JsonLine::default();
    record.write(&mut line);
    sink.write_all(line.finish().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn line(record: &Record) -> serde_json::Value {
        let mut bytes = Vec::new();
        write_record(record, &mut bytes).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(bytes.ends_with(b"\n"));
        serde_json::from_slice(&bytes).unwrap()
    }

    fn record() -> Record {
        let mut record = Record::new(Role::Source, Protocol::Http1, ([192, 0, 2, 1], 99).into());
        record.method = Some(Method::GET);
        record.authority = "shop.example".into();
        record.path = "/a".into();
        record
    }

    #[test]
    fn a_line_has_every_field_that_is_known() {
        let mut record = record();
        record.started = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        record.status = Some(StatusCode::FORBIDDEN);
        let detail = "no policy".to_string();
        record.failure = Some(Failure { kind: Kind::Denied, detail });
        record.destination_cluster = Some(ClusterName::parse("west").unwrap());
        record.transport = Some(Transport::Tcp);
        let line = line(&record);
        assert_eq!(line["start_time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(line["status"], 403);
        assert_eq!(line["fed_code"], "FED5001");
        assert_eq!(line["response_flags"], "UAEX");
        assert_eq!(line["destination_cluster"], "west");
        assert_eq!(line["transport"], "tcp");
        assert_eq!(line["client"], "192.0.2.1:99");
        assert!(line.get("upstream").is_none());
    }

    #[test]
    fn nobody_can_write_a_second_line_or_field_through_a_value() {
        let mut record = record();
        record.path = "/\n{\"status\":200}\",\"status\":200,\"x\":\"\u{1b}[31m\\".into();
        let line = line(&record);
        assert_eq!(line["path"].as_str(), Some(record.path.as_str()));
        assert!(line.get("status").is_none());
        record.path = "/".repeat(100_000);
        assert!(self::line(&record)["path"].as_str().unwrap().len() < 1_000);
    }

    #[test]
    fn a_record_keeps_no_more_of_a_long_text_than_its_line_shows() {
        let mut record = record();
        record.path = cut(&"ä".repeat(64 * 1024));
        assert!(record.path.len() <= 2 * (ACCESS_LOG_VALUE_CHARS_MAX + 1));
        let shown = format!("{}…", "ä".repeat(ACCESS_LOG_VALUE_CHARS_MAX));
        assert_eq!(line(&record)["path"], shown);
        for text in ["", "/short", &"x".repeat(ACCESS_LOG_VALUE_CHARS_MAX)] {
            record.path = cut(text);
            assert_eq!(line(&record)["path"], *text, "nothing is missing");
        }
    }

    #[test]
    fn a_new_file_is_not_for_everybody() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (log, writer) = AccessLog::open(&path).unwrap();
        writer.finish(&log);
        assert_eq!(path.metadata().unwrap().mode() & 0o137, 0);
    }

    #[test]
    fn a_dropped_entry_is_written_as_a_client_that_went_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (log, writer) = AccessLog::open(&path).unwrap();
        let shard = Arc::new(Shard::default());
        drop(LogEntry::begin(record(), &log, &shard));
        let mut entry = LogEntry::begin(record(), &log, &shard);
        entry.fail(&ProxyError::unsent(Kind::NoRoute, "first"));
        entry.fail(&ProxyError::unsent(Kind::Internal, "second"));
        drop(entry);
        let mut entry = LogEntry::begin(record(), &log, &shard);
        entry.succeed();
        drop(entry);
        writer.finish(&log);
        let mut text = String::new();
        std::fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        let flags: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|line| line["response_flags"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(flags, ["DC", "NR", "-"]);
    }

    /// A sink that takes nothing until it is released.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_disk_costs_records_not_requests() {
        let (release, stuck) = sync_channel(1);
        let (log, writer) = AccessLog::start(Box::new(Stuck(stuck))).unwrap();
        let pushed = 3 * ACCESS_LOG_QUEUE_MAX;
        (0..pushed).for_each(|_| log.push(Box::new(record())));
        let dropped = log.dropped();
        assert!(dropped >= ACCESS_LOG_QUEUE_MAX as u64, "{dropped}");
        drop(release);
        writer.finish(&log);
    }
}
