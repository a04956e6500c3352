//! Long content whose every byte is known by its place, so that a lost, doubled or exchanged piece
//! shows, and where.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Prime, so that it is in step with no buffer and no frame.
const PERIOD_BYTES: usize = 65_521;
/// The longest piece that [`piece`] makes.
const PIECE_BYTES_MAX: usize = 32 * 1024;

/// The content from `offset` on: as much as fits one piece, at most `left`.
pub fn piece(offset: u64, left: u64) -> Bytes {
    let start = (offset % PERIOD_BYTES as u64) as usize;
    let length = left.min(PIECE_BYTES_MAX as u64) as usize;
    table().slice(start..start + length)
}

fn table() -> &'static Bytes {
    static TABLE: OnceLock<Bytes> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut period = Vec::with_capacity(PERIOD_BYTES + PIECE_BYTES_MAX);
        for _ in 0..PERIOD_BYTES {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            period.push((state >> 32) as u8);
        }
        period.extend_from_within(..PIECE_BYTES_MAX);
        period.into()
    })
}

/// Compares what arrives with the pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    pub bytes: u64,
    /// Where the piece begins that differs first.
    pub wrong_at: Option<u64>,
}

impl Check {
    pub fn take(&mut self, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            let expected = piece(self.bytes, rest.len() as u64);
            let (now, later) = rest.split_at(expected.len());
            if now != expected && self.wrong_at.is_none() {
                self.wrong_at = Some(self.bytes);
            }
            self.bytes += now.len() as u64;
            rest = later;
        }
    }

    /// The whole pattern of this length, and nothing else.
    pub fn is_intact(&self, bytes: u64) -> bool {
        self.wrong_at.is_none() && self.bytes == bytes
    }
}

/// The first bytes of the pattern as an HTTP body of known length.
#[derive(Debug)]
pub struct PatternBody {
    offset: u64,
    end: u64,
}

impl PatternBody {
    pub fn new(bytes: u64) -> Self {
        Self { offset: 0, end: bytes }
    }
}

impl Body for PatternBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = self.end - self.offset;
        if left == 0 {
            return Poll::Ready(None);
        }
        let data = piece(self.offset, left);
        self.offset += data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.offset == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: u64) -> Vec<u8> {
        let mut content = Vec::new();
        while (content.len() as u64) < bytes {
            let offset = content.len() as u64;
            content.extend_from_slice(&piece(offset, bytes - offset));
        }
        content
    }

    #[test]
    fn damage_of_any_kind_shows() {
        let good = whole(300_000);
        let check = |content: &[u8]| {
            let mut check = Check::default();
            content.chunks(7_777).for_each(|chunk| check.take(chunk));
            check
        };
        assert!(check(&good).is_intact(300_000));
        assert!(!check(&good[..299_999]).is_intact(300_000));
        let mut flipped = good.clone();
        flipped[123_456] ^= 1;
        assert!(check(&flipped).wrong_at.is_some_and(|at| at <= 123_456));
        let mut lost = good.clone();
        lost.drain(65_536..131_072);
        assert!(check(&lost).wrong_at.is_some());
        let mut doubled = good.clone();
        doubled.splice(65_536..65_536, good[..65_536].to_vec());
        assert!(check(&doubled).wrong_at.is_some());
        let mut exchanged = good;
        let (first, second) = exchanged.split_at_mut(16_384);
        first.swap_with_slice(&mut second[..16_384]);
        assert_eq!(check(&exchanged).wrong_at, Some(0));
    }
}
