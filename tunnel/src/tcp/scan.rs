//! Finds the frames in a stream's bytes, to take out those that stand for what QUIC says beside the
//! bytes: RESET, STOP and CLOSE. All else is passed on as it came, without a copy.

use bytes::{BufMut, Bytes, BytesMut};
use wire::tunnel::{FrameType, varint};

const RESET: u64 = 0x17;
const STOP: u64 = 0x19;
const CLOSE: u64 = 0x1d;
/// Longest reason in a CLOSE frame.
const REASON_BYTES_MAX: usize = 512;
/// The longest payload of the three: a code and a reason.
const SIGNAL_BYTES_MAX: u64 = (varint::VARINT_BYTES_MAX + REASON_BYTES_MAX) as u64;

/// What a stream says of itself, and not to the exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signal {
    /// The sender gives its direction up.
    Reset(u64),
    /// The sender wants no more of the other direction.
    Stop(u64),
    /// The connection ends, said on its control stream.
    Close(u64, Bytes),
}

impl Signal {
    /// The whole frame.
    pub(super) fn encode(&self) -> Bytes {
        let (kind, code, reason) = match self {
            Self::Reset(code) => (RESET, *code, &[][..]),
            Self::Stop(code) => (STOP, *code, &[][..]),
            Self::Close(code, reason) => (CLOSE, *code, &reason[..]),
        };
        let mut payload = BytesMut::with_capacity(varint::VARINT_BYTES_MAX + reason.len());
        varint::encode(code, &mut payload);
        payload.put(&reason[..reason.len().min(REASON_BYTES_MAX)]);
        let mut frame = BytesMut::with_capacity(4 + payload.len());
        varint::encode(kind, &mut frame);
        varint::encode(payload.len() as u64, &mut frame);
        frame.put(payload);
        frame.freeze()
    }

    fn decode(kind: u64, payload: Bytes) -> Result<Self, Malformed> {
        let (code, length) = varint::decode(&payload).ok_or(Malformed)?;
        match kind {
            CLOSE => Ok(Self::Close(code, payload.slice(length..))),
            _ if length != payload.len() => Err(Malformed),
            RESET => Ok(Self::Reset(code)),
            _ => Ok(Self::Stop(code)),
        }
    }
}

/// A signal that breaks its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What one step has found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// For the exchange; whether it lay in the piece as it is, and so counts as bytes of it.
    Bytes(Bytes, bool),
    Signal(Signal),
}

/// Follows one direction of a stream from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The header of the next frame, as far as earlier pieces had it.
    header: BytesMut,
    /// Bytes of the present frame's payload that are to come.
    left: u64,
    /// The present frame, if it is to be taken out, and what came of it.
    signal: Option<(u64, BytesMut)>,
    /// Whether the present frame is the exchange's last one.
    is_last: bool,
}

impl Scanner {
    /// Whether END or REFUSED stands behind us: the direction's end, as FIN says it on QUIC.
    pub(super) fn is_over(&self) -> bool {
        self.is_last && self.left == 0
    }

    /// Takes the next part of a piece; `None` when all of it is taken.
    pub(super) fn next(&mut self, piece: &mut Bytes) -> Result<Option<Found>, Malformed> {
        loop {
            if self.left == 0
                && let Some((kind, payload)) = self.signal.take()
            {
                return Signal::decode(kind, payload.freeze()).map(|s| Some(Found::Signal(s)));
            }
            if self.left > 0 && !piece.is_empty() {
                let payload = piece.split_to(self.present(piece));
                self.left -= payload.len() as u64;
                match &mut self.signal {
                    Some((_, gathered)) => gathered.put(payload),
                    None => return Ok(Some(Found::Bytes(payload, true))),
                }
            } else if self.header.is_empty()
                && let Some((kind, length, header)) = parse(piece)
            {
                self.begin(kind, length)?;
                if self.signal.is_some() {
                    let _ = piece.split_to(header);
                    continue;
                }
                // Header and payload are passed on as one.
                let payload = self.present(&piece[header..]);
                self.left -= payload as u64;
                return Ok(Some(Found::Bytes(piece.split_to(header + payload), true)));
            } else if piece.is_empty() {
                return Ok(None);
            } else {
                // The header is split over pieces: it is gathered bytewise, and has at most 16 bytes.
                self.header.extend_from_slice(&piece.split_to(1));
                if let Some((kind, length, _)) = parse(&self.header) {
                    let header = self.header.split().freeze();
                    self.begin(kind, length)?;
                    if self.signal.is_none() {
                        return Ok(Some(Found::Bytes(header, false)));
                    }
                }
            }
        }
    }

    fn begin(&mut self, kind: u64, length: u64) -> Result<(), Malformed> {
        self.left = length;
        if matches!(kind, RESET | STOP | CLOSE) {
            if length > SIGNAL_BYTES_MAX {
                return Err(Malformed);
            }
            self.signal = Some((kind, BytesMut::new()));
        } else {
            self.is_last = kind == FrameType::End as u64 || kind == FrameType::Refused as u64;
        }
        Ok(())
    }

    /// How much of the present payload is here.
    fn present(&self, piece: &[u8]) -> usize {
        usize::try_from(self.left).map_or(piece.len(), |left| left.min(piece.len()))
    }
}

/// Type, length and the header's own length, if all of it is there.
fn parse(input: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, first) = varint::decode(input)?;
    let (length, second) = varint::decode(&input[first..])?;
    Some((kind, length, first + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut frame = BytesMut::new();
        varint::encode(kind, &mut frame);
        varint::encode(payload.len() as u64, &mut frame);
        frame.put(payload);
        frame.to_vec()
    }

    /// Scans in pieces of this length: what is the exchange's, the signals, and how many bytes were
    /// passed on as they came.
    fn scan(stream: &[u8], piece: usize) -> (Vec<u8>, Vec<Signal>, usize, bool) {
        let mut scanner = Scanner::default();
        let (mut bytes, mut signals, mut counted) = (Vec::new(), Vec::new(), 0);
        for piece in stream.chunks(piece) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(found) = scanner.next(&mut piece).unwrap() {
                match found {
                    Found::Bytes(found, is_counted) => {
                        counted += if is_counted { found.len() } else { 0 };
                        bytes.extend_from_slice(&found);
                    }
                    Found::Signal(signal) => signals.push(signal),
                }
            }
        }
        (bytes, signals, counted, scanner.is_over())
    }

    #[test]
    fn signals_are_taken_out_wherever_the_pieces_end() {
        let data = frame(FrameType::Data as u64, &[7; 300]);
        let end = frame(FrameType::End as u64, &[]);
        let signals =
            [Signal::Reset(0x1a3), Signal::Stop(3), Signal::Close(5, Bytes::from_static(b"why"))];
        let own = [&data[..], &data, &end].concat();
        let [reset, stop, close] = signals.each_ref().map(Signal::encode);
        let stream = [&data[..], &stop, &data, &reset, &end, &close].concat();
        for piece in (1..40).chain([300, 301, 303, 304, 10_000]) {
            let (bytes, told, counted, is_over) = scan(&stream, piece);
            assert_eq!(bytes, own, "{piece}");
            assert_eq!(told, [signals[1].clone(), signals[0].clone(), signals[2].clone()]);
            assert!(counted <= own.len() && is_over, "{piece}: {counted}");
        }
        assert_eq!(scan(&stream, 10_000).2, own.len(), "nothing is copied");
    }

    #[test]
    fn only_end_and_a_whole_refusal_are_the_end() {
        let refused = frame(FrameType::Refused as u64, &[1; 20]);
        assert!(!scan(&refused[..21], 4).3);
        assert!(scan(&refused, 4).3);
        assert!(!scan(&frame(FrameType::Data as u64, &[1]), 4).3);
        assert!(!scan(&[], 1).3);
    }

    #[test]
    fn signals_that_break_their_format_are_refused() {
        for stream in [
            frame(RESET, &[]),
            frame(STOP, &[1, 2]),
            frame(RESET, &[0x40]),
            frame(CLOSE, &[0; SIGNAL_BYTES_MAX as usize + 1]),
        ] {
            let mut piece = Bytes::from(stream.clone());
            let mut scanner = Scanner::default();
            let last = loop {
                match scanner.next(&mut piece) {
                    Ok(Some(_)) => {}
                    last => break last,
                }
            };
            assert_eq!(last, Err(Malformed), "{stream:?}");
        }
    }
}
