//! QUIC's variable-length integer, RFC 9000 §16: two bits of length, then 6, 14, 30 or 62 bits.

use bytes::{BufMut, BytesMut};

/// The largest value that fits.
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// The longest encoding.
pub const VARINT_BYTES_MAX: usize = 8;

/// Reads one integer from the start of `input`: the value and how many bytes it took; `None` if
/// `input` ends before the integer does. Encodings longer than needed are valid.
pub fn decode(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    let length = encoded_length(first);
    let bytes = input.get(..length)?;
    let value = u64::from(first & 0x3f);
    Some((bytes[1..].iter().fold(value, |value, &byte| value << 8 | u64::from(byte)), length))
}

/// How long the integer is whose first byte this is.
pub fn encoded_length(first: u8) -> usize {
    1 << (first >> 6)
}

/// Appends `value` in the fewest bytes. `value` must not be above [`VARINT_MAX`].
pub fn encode(value: u64, out: &mut BytesMut) {
    debug_assert!(value <= VARINT_MAX, "{value} does not fit a QUIC varint");
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(0x4000 | value as u16),
        0x4000..=0x3fff_ffff => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9000_a1() {
        for (hex, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            assert_eq!(decode(hex), Some((value, hex.len())));
            let mut out = BytesMut::new();
            encode(value, &mut out);
            assert_eq!(&out[..], hex);
            for end in 0..hex.len() {
                assert_eq!(decode(&hex[..end]), None, "cut at {end}");
            }
        }
        assert_eq!(decode(&[0x40, 0x25]), Some((37, 2)), "a longer encoding is valid");
    }

    #[test]
    fn the_bounds_of_each_length() {
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, VARINT_MAX] {
            let mut out = BytesMut::new();
            encode(value, &mut out);
            assert_eq!(decode(&out), Some((value, out.len())));
        }
    }
}
