//! Two QUIC endpoints and the path between them in virtual time: what controllers make of a path,
//! from a seed, on however busy a machine.

mod end;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use identity::ExpectedPeer;
use model::ClusterName;
use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Event,
    ServerConfig, StreamEvent, StreamId,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use wire::tunnel::ConnectionClass;

use crate::config::TunnelLimits;
use crate::transport::{ServerConfigs, client_config, transport};
use end::{End, address, site};

/// A path that is the same in both directions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    pub(super) one_way: Duration,
    /// Share of packets that are lost, whatever is sent.
    pub(super) loss: f64,
    pub(super) bottleneck: Option<Bottleneck>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Bottleneck {
    pub(super) bits_per_s: u64,
    /// Packets that wait for their turn; further ones are dropped.
    pub(super) queue_packets: usize,
    /// Packets that meet a longer queue are marked (RFC 3168).
    pub(super) marks_above: usize,
}

/// What runs over it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work {
    /// Small requests a second, by 16 clients that each wait for their answer before they ask again.
    pub(super) small_per_s: u32,
    /// The first so many connections carry them.
    pub(super) small_on: usize,
    /// The last so many connections carry a download each.
    pub(super) downloads: usize,
}

/// A controller for each connection; it is that of the side that answers which matters.
pub(super) type Controllers = Vec<Arc<dyn ControllerFactory + Send + Sync>>;

const CLIENTS: usize = 16;
const REQUEST_BYTES: usize = 350;
/// OPENED goes out at once, the rest when the origin has answered.
const OPENED_BYTES: usize = 40;
const RESPONSE_BYTES: usize = 1250;
const ORIGIN_TAKES: Duration = Duration::from_millis(1);
const BEACON_BYTES: usize = 30;
const BEACON_INTERVAL: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_micros(50);
const CONTROL: u8 = b'c';
const REQUEST: u8 = b'r';
const DOWNLOAD: u8 = b'd';
const ASKS: usize = 0;
const ANSWERS: usize = 1;

type Place = (usize, StreamId);

pub(super) struct Network {
    pub(super) now: Instant,
    pub(super) path: Path,
    rng: SmallRng,
    controllers: Controllers,
    clients: ClientConfig,
    servers: ServerConfigs,
    ends: [End; 2],
    on_the_way: BTreeMap<(Instant, u64), Packet>,
    packets: u64,
    /// When packets that wait at the bottleneck have left it, by the end that they go to.
    leaving: [VecDeque<Instant>; 2],
    work: Work,
    asking: Asking,
    answering: Answering,
}

struct Packet {
    to: usize,
    ecn: Option<EcnCodepoint>,
    bytes: BytesMut,
}

#[derive(Default)]
struct Asking {
    next_due: Option<Instant>,
    waiting: VecDeque<Instant>,
    idle: VecDeque<usize>,
    /// Which client waits for this answer, and since when.
    busy: BTreeMap<Place, (usize, Instant)>,
    beacon_at: Option<Instant>,
    controls: BTreeMap<usize, StreamId>,
    downloads: BTreeMap<Place, u64>,
    took: Vec<Duration>,
}

#[derive(Default)]
struct Answering {
    kinds: BTreeMap<Place, u8>,
    replies: VecDeque<(Instant, Place)>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) answered: usize,
    /// Of each download.
    pub(super) mbit_per_s: Vec<f64>,
    pub(super) lost_percent: f64,
}

impl Network {
    /// All connections stand when it returns.
    pub(super) fn new(path: Path, controllers: Controllers, seed: u64) -> Self {
        let (identity, limits) = (site(), TunnelLimits::default());
        let cluster = ClusterName::parse("east").unwrap();
        let expected = ExpectedPeer::Cluster(cluster);
        let fast = ConnectionClass::Fast;
        let mut network = Self {
            now: Instant::now(),
            path,
            rng: SmallRng::seed_from_u64(seed),
            controllers,
            clients: client_config(&limits, Arc::clone(&identity), expected, fast).unwrap(),
            servers: ServerConfigs::new(&limits, identity).unwrap(),
            ends: [0, 1].map(|number| End::new(number, seed)),
            on_the_way: BTreeMap::new(),
            packets: 0,
            leaving: [VecDeque::new(), VecDeque::new()],
            work: Work::default(),
            asking: Asking { idle: (0..CLIENTS).collect(), ..Asking::default() },
            answering: Answering::default(),
        };
        for number in 0..network.controllers.len() {
            network.connect(number);
        }
        network
    }

    /// Lets `work` run for so long.
    pub(super) fn run(&mut self, work: Work, lasting: Duration) -> Outcome {
        let lost = |network: &Self| network.sum(|c| c.stats().path.lost_packets);
        let sent = |network: &Self| network.sum(|c| c.stats().path.sent_packets);
        let (lost_before, sent_before) = (lost(self), sent(self));
        self.begin(work);
        self.advance(self.now + lasting, |_| false);
        let mut took = std::mem::take(&mut self.asking.took);
        took.sort();
        let ms = |percent: usize| {
            took.get(took.len() * percent / 100).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
        };
        let rate = |bytes: &u64| *bytes as f64 * 8.0 / lasting.as_secs_f64() / 1e6;
        Outcome {
            p50_ms: ms(50),
            p99_ms: ms(99),
            answered: took.len(),
            mbit_per_s: self.asking.downloads.values().map(rate).collect(),
            lost_percent: (lost(self) - lost_before) as f64 * 100.0
                / (sent(self) - sent_before) as f64,
        }
    }

    /// The controller of the side that answers.
    pub(super) fn controller(&self, connection: usize) -> Box<dyn Controller> {
        self.ends[ANSWERS].connections[connection].congestion_state().clone_box()
    }

    fn sum(&self, count: impl Fn(&Connection) -> u64) -> u64 {
        self.ends[ANSWERS].connections.iter().map(count).sum()
    }

    fn connect(&mut self, number: usize) {
        let mut config = self.clients.clone();
        config.transport_config(self.transport(number));
        let to = address(ANSWERS);
        let connected = self.ends[ASKS].endpoint.connect(self.now, config, to, "fedgate");
        let (handle, connection) = connected.unwrap();
        assert_eq!(handle, ConnectionHandle(number), "numbered as they come");
        self.ends[ASKS].connections.push(connection);
        let limit = self.now + Duration::from_secs(60);
        self.flush();
        self.advance(limit, |network| {
            let stands =
                |end: &End| end.connections.get(number).is_some_and(|c| !c.is_handshaking());
            network.ends.iter().all(stands)
        });
        assert!(self.now < limit, "connection {number} stands");
    }

    fn transport(&self, number: usize) -> Arc<quinn::TransportConfig> {
        let transport = transport(&TunnelLimits::default(), ConnectionClass::Bulk);
        let mut transport = Arc::into_inner(transport).unwrap();
        transport.congestion_controller_factory(Arc::clone(&self.controllers[number]));
        transport.max_idle_timeout(None); // not all have beacons
        Arc::new(transport)
    }

    fn begin(&mut self, work: Work) {
        self.work = work;
        self.asking.next_due = (work.small_per_s > 0).then_some(self.now);
        self.asking.beacon_at = (work.small_per_s > 0 && work.small_on == 1).then_some(self.now);
        for bytes in self.asking.downloads.values_mut() {
            *bytes = 0;
        }
        let all = self.ends[ASKS].connections.len();
        for number in all - work.downloads..all {
            if !self.asking.downloads.keys().any(|(on, _)| *on == number) {
                let stream = self.open(number, &[DOWNLOAD; 100]);
                self.finish(ASKS, (number, stream));
                self.asking.downloads.insert((number, stream), 0);
            }
        }
        self.flush();
    }

    /// Until then, or until it holds.
    fn advance(&mut self, until: Instant, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let next = self.next_event().filter(|next| *next <= until);
            let Some(next) = next else {
                self.now = until;
                return;
            };
            // No host is more exact, and quinn's pacer may ask for less than it can count.
            self.now = next.max(self.now + TICK);
            self.deliver();
            let now = self.now;
            for connection in self.ends.iter_mut().flat_map(|end| &mut end.connections) {
                if connection.poll_timeout().is_some_and(|at| at <= now) {
                    connection.handle_timeout(now);
                }
            }
            self.ask();
            self.reply();
            self.flush();
        }
    }

    fn next_event(&mut self) -> Option<Instant> {
        let packet = self.on_the_way.keys().next().map(|(at, _)| *at);
        let reply = self.answering.replies.front().map(|(at, _)| *at);
        let own = [packet, reply, self.asking.next_due, self.asking.beacon_at];
        let timers = self.ends.iter_mut().flat_map(|end| &mut end.connections);
        timers.filter_map(Connection::poll_timeout).chain(own.into_iter().flatten()).min()
    }

    fn deliver(&mut self) {
        while let Some(first) = self.on_the_way.first_entry() {
            if first.key().0 > self.now {
                return;
            }
            let Packet { to, ecn, bytes } = first.remove();
            let from = address(1 - to);
            let (now, mut response) = (self.now, Vec::new());
            let event = self.ends[to].endpoint.handle(now, from, None, ecn, bytes, &mut response);
            match event {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    self.ends[to].connections[handle.0].handle_event(event);
                }
                Some(DatagramEvent::NewConnection(incoming)) => {
                    let number = self.ends[to].connections.len();
                    let mut config =
                        ServerConfig::clone(&self.servers.choose(incoming.orig_dst_cid()));
                    config.transport_config(self.transport(number));
                    let end = &mut self.ends[to];
                    let accepted =
                        end.endpoint.accept(incoming, now, &mut response, Some(Arc::new(config)));
                    let (handle, connection) = accepted.map_err(|e| e.cause).unwrap();
                    assert_eq!(handle, ConnectionHandle(number), "numbered as they come");
                    end.connections.push(connection);
                }
                Some(DatagramEvent::Response(_)) | None => {}
            }
        }
    }

    /// Sends what is to be sent, until nobody has anything more to say.
    fn flush(&mut self) {
        loop {
            let mut events = Vec::new();
            for end in [ASKS, ANSWERS] {
                for number in 0..self.ends[end].connections.len() {
                    self.transmit(end, number);
                    let connection = &mut self.ends[end].connections[number];
                    while let Some(event) = connection.poll() {
                        events.push((end, number, event));
                    }
                }
            }
            if events.is_empty() {
                return;
            }
            for (end, number, event) in events {
                match event {
                    Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                        while let Some(id) =
                            self.ends[end].connections[number].streams().accept(Dir::Bi)
                        {
                            self.read(end, (number, id));
                        }
                    }
                    Event::Stream(StreamEvent::Readable { id }) => self.read(end, (number, id)),
                    Event::Stream(StreamEvent::Writable { id }) => self.fill((number, id)),
                    Event::ConnectionLost { reason } => panic!("connection {number}: {reason}"),
                    _ => {}
                }
            }
        }
    }

    fn transmit(&mut self, end: usize, number: usize) {
        let End { endpoint, connections } = &mut self.ends[end];
        let connection = &mut connections[number];
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = endpoint.handle_event(ConnectionHandle(number), event) {
                connection.handle_event(event);
            }
        }
        let mut buffer = Vec::new();
        while let Some(transmit) =
            self.ends[end].connections[number].poll_transmit(self.now, 10, &mut buffer)
        {
            let size = transmit.segment_size.unwrap_or(transmit.size);
            for datagram in buffer[..transmit.size].chunks(size) {
                self.send(1 - end, transmit.ecn, datagram);
            }
            buffer.clear();
        }
    }

    fn send(&mut self, to: usize, mut ecn: Option<EcnCodepoint>, datagram: &[u8]) {
        let mut leaves = self.now;
        if let Some(bottleneck) = self.path.bottleneck {
            let waiting = &mut self.leaving[to];
            while waiting.front().is_some_and(|at| *at <= self.now) {
                waiting.pop_front();
            }
            if waiting.len() >= bottleneck.queue_packets {
                return;
            }
            if waiting.len() > bottleneck.marks_above && ecn.is_some() {
                ecn = Some(EcnCodepoint::Ce);
            }
            let bits = (datagram.len() as u64 + 28) * 8;
            let takes = Duration::from_nanos(bits * 1_000_000_000 / bottleneck.bits_per_s);
            leaves = waiting.back().copied().unwrap_or(self.now).max(self.now) + takes;
            waiting.push_back(leaves);
        }
        if self.rng.random_bool(self.path.loss) {
            return;
        }
        self.packets += 1;
        let packet = Packet { to, ecn, bytes: datagram.into() };
        self.on_the_way.insert((leaves + self.path.one_way, self.packets), packet);
    }

    fn open(&mut self, number: usize, bytes: &[u8]) -> StreamId {
        let stream = self.ends[ASKS].connections[number].streams().open(Dir::Bi).unwrap();
        self.write(ASKS, (number, stream), bytes);
        stream
    }

    fn write(&mut self, end: usize, (number, stream): Place, bytes: &[u8]) {
        let written = self.ends[end].connections[number].send_stream(stream).write(bytes);
        assert_eq!(written, Ok(bytes.len()), "small writes find room");
    }

    fn finish(&mut self, end: usize, (number, stream): Place) {
        self.ends[end].connections[number].send_stream(stream).finish().unwrap();
    }

    /// Whoever asks: what is due now.
    fn ask(&mut self) {
        while let Some(due) = self.asking.next_due.filter(|due| *due <= self.now) {
            self.asking.waiting.push_back(due);
            self.asking.next_due = Some(due + Duration::from_secs(1) / self.work.small_per_s);
        }
        while !self.asking.idle.is_empty()
            && let Some(due) = self.asking.waiting.pop_front()
        {
            let client = self.asking.idle.pop_front().unwrap();
            let number = client % self.work.small_on;
            let stream = self.open(number, &[REQUEST; REQUEST_BYTES]);
            self.finish(ASKS, (number, stream));
            self.asking.busy.insert((number, stream), (client, due));
        }
        if self.asking.beacon_at.is_some_and(|at| at <= self.now) {
            self.asking.beacon_at = Some(self.now + BEACON_INTERVAL);
            for number in 0..self.work.small_on {
                let beacon = [CONTROL; BEACON_BYTES];
                match self.asking.controls.get(&number) {
                    Some(&stream) => self.write(ASKS, (number, stream), &beacon),
                    None => {
                        let stream = self.open(number, &beacon);
                        self.asking.controls.insert(number, stream);
                    }
                }
            }
        }
    }

    /// Whoever answers: what the origin has answered by now.
    fn reply(&mut self) {
        while let Some((at, place)) = self.answering.replies.front().copied() {
            if at > self.now {
                return;
            }
            self.answering.replies.pop_front();
            self.write(ANSWERS, place, &[0; RESPONSE_BYTES]);
            self.finish(ANSWERS, place);
        }
    }

    fn read(&mut self, end: usize, place: Place) {
        let (number, stream) = place;
        let mut first = None;
        let (mut bytes, mut has_ended) = (0, false);
        let mut received = self.ends[end].connections[number].recv_stream(stream);
        let Ok(mut chunks) = received.read(true) else { return };
        while let Ok(chunk) = chunks.next(usize::MAX) {
            let Some(chunk) = chunk else {
                has_ended = true;
                break;
            };
            first = first.or_else(|| chunk.bytes.first().copied());
            bytes += chunk.bytes.len() as u64;
        }
        let _ = chunks.finalize(); // all is sent after each event
        match end {
            ASKS => self.asked(place, bytes, has_ended),
            _ => self.told(place, first, has_ended),
        }
    }

    fn asked(&mut self, place: Place, bytes: u64, has_ended: bool) {
        if let Some(downloaded) = self.asking.downloads.get_mut(&place) {
            *downloaded += bytes;
        }
        if has_ended && let Some((client, due)) = self.asking.busy.remove(&place) {
            self.asking.took.push(self.now - due);
            self.asking.idle.push_back(client);
            self.ask();
        }
    }

    fn told(&mut self, place: Place, first: Option<u8>, has_ended: bool) {
        let Some(kind) = first.map(|first| *self.answering.kinds.entry(place).or_insert(first))
        else {
            return;
        };
        match kind {
            CONTROL => self.write(ANSWERS, place, &[CONTROL; BEACON_BYTES]),
            DOWNLOAD => self.fill(place),
            REQUEST if has_ended => {
                self.write(ANSWERS, place, &[0; OPENED_BYTES]);
                self.answering.replies.push_back((self.now + ORIGIN_TAKES, place));
            }
            _ => {}
        }
    }

    /// A download has always more to send.
    fn fill(&mut self, (number, stream): Place) {
        let mut send = self.ends[ANSWERS].connections[number].send_stream(stream);
        while send.write(&[0; 16 * 1024]).is_ok() {}
    }
}
