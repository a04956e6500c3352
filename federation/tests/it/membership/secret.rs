//! What nobody may find: the secret of a token, in what all nodes log at their most talkative, or in
//! any file of theirs.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use federation::membership::TokenRequest;
use model::code::TOKEN_USED;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;

use super::join::secret_of;
use super::site::{Cluster, files, request, stop_all};
use crate::fixture::until;

/// The log of the whole process, while it is looked at.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static LISTENING: AtomicBool = AtomicBool::new(false);

/// What other tests log at the same time is in it too; so much is enough.
const LOG_BYTES_MAX: usize = 1 << 30;

#[derive(Debug)]
struct Recorder;

impl io::Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(log.len() < LOG_BYTES_MAX, "somebody logs without an end");
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_of_a_token_is_in_no_log_and_in_no_file() {
    let heard = dynamic_filter_fn(|_, _| LISTENING.load(Ordering::Relaxed))
        .with_max_level_hint(LevelFilter::DEBUG);
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Recorder);
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(heard));
    tracing::subscriber::set_global_default(subscriber).unwrap();
    LISTENING.store(true, Ordering::Relaxed);

    let east = Cluster::start("east").await;
    let inviter = east.membership();
    inviter.init().await.unwrap();
    let asking = TokenRequest { approval_needed: true, ..request("west") };
    let token = east.token(&asking).await;
    let west = Cluster::start("west").await;
    west.membership().check_token(&token.text).await.unwrap();
    let thief = Cluster::start("west").await;
    let (refused, joined) = tokio::join!(
        async {
            west.until_members(2).await;
            thief.join(&token.text).await
        },
        async {
            let approval = async {
                until("a join that waits", || async { inviter.pending() }, |r| r.len() == 1).await;
                inviter.approve(west.membership().own()).unwrap();
            };
            tokio::join!(west.join(&token.text), approval).0
        },
    );
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), TOKEN_USED, "before a person is asked: {refused}");
    joined.unwrap();
    east.until_members(2).await;
    inviter.revoke_token(token.id).await.unwrap_err();
    let shown = format!("{token:?} {refused:?} {refused}");
    LISTENING.store(false, Ordering::Relaxed);

    let needles = needles(&secret_of(&token.text), token.text.expose());
    let log = std::mem::take(&mut *LOG.lock().unwrap_or_else(PoisonError::into_inner));
    let line = String::from_utf8_lossy(&log);
    assert!(line.contains("a token was issued") && line.contains("a cluster has joined"));
    assert!(line.contains("DEBUG"), "not even debugging was on");
    for (what, needle) in &needles {
        assert!(!contains(&log, needle), "the log has {what}");
        assert!(!contains(shown.as_bytes(), needle), "an answer has {what}");
    }
    for cluster in [&east, &west, &thief] {
        for (path, bytes) in files(&cluster.path("")) {
            for (what, needle) in &needles {
                assert!(!contains(&bytes, needle), "{} has {what}", path.display());
            }
        }
    }
    drop(inviter);
    stop_all(vec![east, west, thief]).await;
}

/// All forms in which a part of it may be written down.
fn needles(secret: &[u8; 32], text: &str) -> Vec<(String, Vec<u8>)> {
    let body = text.strip_prefix("fedgate1.").unwrap();
    let mut needles = vec![
        ("the token".to_string(), body.as_bytes().to_vec()),
        ("the secret".to_string(), secret.to_vec()),
    ];
    let half = &secret[..16];
    let hex = |upper: bool| -> String {
        let digits = |byte: &u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
        half.iter().map(digits).collect()
    };
    let numbers: Vec<String> = half.iter().map(u8::to_string).collect();
    let escaped: String = half.iter().map(|byte| byte.escape_ascii().to_string()).collect();
    needles.extend([
        ("its hexadecimal digits".into(), hex(false).into_bytes()),
        ("its upper-case digits".into(), hex(true).into_bytes()),
        ("its bytes as numbers".into(), numbers.join(", ").into_bytes()),
        ("its bytes with escapes".into(), escaped.into_bytes()),
    ]);
    for alphabet in ["+/", "-_"] {
        for before in 0..3 {
            // Digits that other bytes have a part in are left out.
            let digits = base64(&[&[0; 2][..before], secret].concat(), alphabet.as_bytes());
            let inner = digits[4..digits.len() - 4].to_vec();
            needles.push((format!("its base64 ({alphabet}, {before} bytes in)"), inner));
        }
    }
    needles
}

fn base64(bytes: &[u8], last: &[u8]) -> Vec<u8> {
    let mut alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
    alphabet.extend(last);
    let groups = bytes.chunks(3).flat_map(|group| {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        let digits = [18, 12, 6, 0].map(|shift| bits >> shift & 63);
        digits.into_iter().take(group.len() + 1).collect::<Vec<_>>()
    });
    groups.map(|digit| alphabet[digit]).collect()
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else { return true };
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| byte == first) {
        from += at + 1;
        if bytes[from..].starts_with(rest) {
            return true;
        }
    }
    false
}

#[test]
fn what_is_looked_for_would_be_found() {
    let secret: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0xa5);
    assert_eq!(base64(b"fedgate", b"+/"), b"ZmVkZ2F0ZQ");
    let hidden = [
        b"x".repeat(7).as_slice(),
        &base64(&[b"ab".as_slice(), &secret, b"c"].concat(), b"-_"),
        format!("{:?}", secret).as_bytes(),
        format!("{secret:02x?}").replace(", ", "").as_bytes(),
        secret.escape_ascii().to_string().as_bytes(),
    ]
    .concat();
    let found: Vec<String> = needles(&secret, "fedgate1.none")
        .into_iter()
        .filter(|(_, needle)| contains(&hidden, needle))
        .map(|(what, _)| what)
        .collect();
    let wanted = [
        "its hexadecimal digits",
        "its bytes as numbers",
        "its bytes with escapes",
        "its base64 (-_, 2 bytes in)",
    ];
    assert!(wanted.iter().all(|what| found.iter().any(|f| f == what)), "{found:?}");
}
