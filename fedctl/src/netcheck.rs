//! Whether addresses of other clusters answer from this machine, by UDP and by TCP, without any key.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;
use wire::operator::proto::Status;

/// How often a packet is sent before UDP counts as blocked, and how long each answer may take.
const TRIES: usize = 3;
const TRY_TIMEOUT: Duration = Duration::from_millis(700);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses of one name that are tried.
const RESOLVED_MAX: usize = 4;
/// A server answers nothing that is smaller (RFC 9000, 14.1).
const PACKET_BYTES: usize = 1200;
/// A version that no server has, of those that RFC 9000, 15 keeps for this purpose.
const VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];

/// What one address said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub to: SocketAddr,
    /// This machine's own address on the way there.
    pub from: Option<SocketAddr>,
    /// A QUIC server answered after so long.
    pub quic: Result<Duration, String>,
    pub tcp: Result<Duration, String>,
}

/// Asks every address that `host` has. `ids` makes packets unlike others: 16 bytes of any kind.
pub async fn ask(host: &str, port: u16, ids: [u8; 16]) -> Result<Vec<Answer>, String> {
    let resolved = timeout(RESOLVE_TIMEOUT, lookup_host((host, port))).await;
    let resolved = resolved.map_err(|_| "the name server does not answer".to_owned())?;
    let resolved: Vec<SocketAddr> =
        resolved.map_err(|error| error.to_string())?.take(RESOLVED_MAX).collect();
    if resolved.is_empty() {
        return Err("the name has no address".into());
    }
    let mut answers = Vec::new();
    for to in resolved {
        let (quic, tcp) = tokio::join!(ask_quic(to, ids), ask_tcp(to));
        let (quic, from) = match quic {
            Ok((time, from)) => (Ok(time), from),
            Err((why, from)) => (Err(why), from),
        };
        answers.push(Answer { to, from, quic, tcp });
    }
    Ok(answers)
}

type Quic = Result<(Duration, Option<SocketAddr>), (String, Option<SocketAddr>)>;

/// A server that does not know a version says which ones it knows (RFC 9000, 6.1).
async fn ask_quic(to: SocketAddr, ids: [u8; 16]) -> Quic {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let told = |error: io::Error| (error.to_string(), None);
    let socket = UdpSocket::bind(any).await.map_err(told)?;
    socket.connect(to).await.map_err(told)?;
    let from = socket.local_addr().ok();
    let packet = packet(ids);
    let mut problem = "no answer by UDP".to_owned();
    for _ in 0..TRIES {
        let sent = Instant::now();
        if let Err(error) = socket.send(&packet).await {
            problem = error.to_string();
        }
        match timeout(TRY_TIMEOUT, answer(&socket, ids)).await {
            Ok(Ok(())) => return Ok((sent.elapsed(), from)),
            // Nobody listens there, says the machine itself.
            Ok(Err(error)) => problem = error.to_string(),
            Err(_) => {}
        }
    }
    Err((problem, from))
}

fn packet(ids: [u8; 16]) -> Vec<u8> {
    let mut packet = vec![0xc0];
    packet.extend(VERSION);
    for id in ids.chunks(8) {
        packet.push(8);
        packet.extend(id);
    }
    packet.resize(PACKET_BYTES, 0);
    packet
}

async fn answer(socket: &UdpSocket, ids: [u8; 16]) -> io::Result<()> {
    let mut bytes = [0; 2048];
    loop {
        let length = socket.recv(&mut bytes).await?;
        if is_answer(&bytes[..length], ids) {
            return Ok(());
        }
    }
}

/// Version 0, and our ids the other way round (RFC 9000, 17.2.1).
fn is_answer(packet: &[u8], ids: [u8; 16]) -> bool {
    let (to_us, of_server) = (&ids[8..], &ids[..8]);
    packet.len() >= 23
        && packet[0] & 0x80 != 0
        && packet[1..5] == [0; 4]
        && packet[5] == 8
        && packet[6..14] == *to_us
        && packet[14] == 8
        && packet[15..23] == *of_server
}

async fn ask_tcp(to: SocketAddr) -> Result<Duration, String> {
    let begun = Instant::now();
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await {
        Ok(Ok(_)) => Ok(begun.elapsed()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer by TCP".into()),
    }
}

/// How far the node's clock is ahead of this machine's, beyond what the call took. A node says when it
/// started and how long ago that is.
pub fn ahead_ms(status: &Status, before: Timestamp, after: Timestamp) -> i64 {
    let there = status.started_unix_ms.saturating_add(status.uptime_ms);
    let there = i64::try_from(there).unwrap_or(i64::MAX);
    let (before, after) = (before.as_millisecond(), after.as_millisecond());
    match there {
        early if early < before => early - before,
        late if late > after => late - after,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [u8; 16] = *b"serverid-our-ids";

    fn answer_to(packet: &[u8]) -> Vec<u8> {
        let mut answer = vec![0x80, 0, 0, 0, 0, 8];
        answer.extend(&packet[15..23]);
        answer.push(8);
        answer.extend(&packet[6..14]);
        answer.extend([0, 0, 0, 1]);
        answer
    }

    #[test]
    fn only_the_answer_to_our_own_packet_counts() {
        let packet = packet(IDS);
        assert_eq!(packet.len(), PACKET_BYTES);
        let good = answer_to(&packet);
        assert!(is_answer(&good, IDS));
        for wrong in 0..23 {
            let mut bad = good.clone();
            bad[wrong] ^= 0x80;
            assert!(!is_answer(&bad, IDS), "byte {wrong}");
        }
        assert!(!is_answer(&good[..22], IDS));
        assert!(!is_answer(&[], IDS));
    }

    #[tokio::test]
    async fn an_echo_is_no_server_and_silence_is_told() {
        let echo = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = echo.local_addr().unwrap();
        tokio::spawn(async move {
            let mut bytes = [0; 2048];
            while let Ok((length, from)) = echo.recv_from(&mut bytes).await {
                let _ = echo.send_to(&bytes[..length], from).await;
            }
        });
        let answers = ask("127.0.0.1", to.port(), IDS).await.unwrap();
        assert_eq!(answers[0].quic, Err("no answer by UDP".into()));
        assert!(answers[0].tcp.is_err(), "nobody listens by TCP");
        assert!(ask("nowhere.invalid", 1, IDS).await.is_err());
    }

    #[test]
    fn a_clock_is_told_only_beyond_what_the_call_took() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let status =
            |now: u64| Status { started_unix_ms: now - 500, uptime_ms: 500, ..Status::default() };
        assert_eq!(ahead_ms(&status(10_005), at(10_000), at(10_010)), 0);
        assert_eq!(ahead_ms(&status(9_000), at(10_000), at(10_010)), -1000);
        assert_eq!(ahead_ms(&status(11_010), at(10_000), at(10_010)), 1000);
    }
}
