//! A small protobuf reader and writer that neither copies nor allocates, for the one body that is on
//! every request's path: OPEN. Tests hold it against the generated code.

use bytes::{BufMut, Bytes, BytesMut};

/// One field's value as the wire has it.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Varint(u64),
    Bytes(Bytes),
    /// Fixed-width: no field of ours has it, so it is only skipped.
    Fixed,
}

/// Why a message is not protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    Cut,
    LongVarint,
    FieldZero,
    WireType(u8),
}

impl Broken {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "it ends within a field",
            Self::LongVarint => "a varint is longer than ten bytes",
            Self::FieldZero => "a field number is 0 or above 536870911",
            Self::WireType(_) => "a wire type is not 0, 1, 2 or 5",
        }
    }
}

/// Takes the next field off `input`: its number and value; `None` at the end.
pub(crate) fn next_field(input: &mut Bytes) -> Result<Option<(u64, Value)>, Broken> {
    if input.is_empty() {
        return Ok(None);
    }
    let tag = take_varint(input)?;
    let number = tag >> 3;
    if number == 0 || number > 536_870_911 {
        return Err(Broken::FieldZero);
    }
    let value = match (tag & 7) as u8 {
        0 => Value::Varint(take_varint(input)?),
        1 => take(input, 8).map(|_| Value::Fixed)?,
        2 => {
            let length = take_varint(input)?;
            Value::Bytes(take(input, usize::try_from(length).map_err(|_| Broken::Cut)?)?)
        }
        5 => take(input, 4).map(|_| Value::Fixed)?,
        other => return Err(Broken::WireType(other)),
    };
    Ok(Some((number, value)))
}

fn take(input: &mut Bytes, length: usize) -> Result<Bytes, Broken> {
    if length > input.len() {
        return Err(Broken::Cut);
    }
    Ok(input.split_to(length))
}

fn take_varint(input: &mut Bytes) -> Result<u64, Broken> {
    let mut value = 0u64;
    for (index, &byte) in input.iter().enumerate() {
        // The tenth byte holds the last bit of a 64-bit number.
        if index == 9 && byte > 1 {
            return Err(Broken::LongVarint);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            let _ = input.split_to(index + 1);
            return Ok(value);
        }
    }
    Err(if input.len() >= 10 { Broken::LongVarint } else { Broken::Cut })
}

/// Appends a varint field; a zero is left out, as proto3 has it.
pub(crate) fn put_varint_field(number: u8, value: u64, out: &mut BytesMut) {
    if value != 0 {
        out.put_u8(number << 3);
        put_varint(value, out);
    }
}

/// Appends a varint field even if it is zero: for `optional` fields.
pub(crate) fn put_present_varint_field(number: u8, value: u64, out: &mut BytesMut) {
    out.put_u8(number << 3);
    put_varint(value, out);
}

/// Appends a bytes, string or message field; an empty one is left out.
pub(crate) fn put_bytes_field(number: u8, value: &[u8], out: &mut BytesMut) {
    if !value.is_empty() {
        put_message_header(number, value.len(), out);
        out.put_slice(value);
    }
}

/// Appends the tag and length of a message field whose body the caller appends next.
pub(crate) fn put_message_header(number: u8, length: usize, out: &mut BytesMut) {
    out.put_u8(number << 3 | 2);
    put_varint(length as u64, out);
}

fn put_varint(mut value: u64, out: &mut BytesMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_messages_say_how() {
        for (input, broken) in [
            (&[0x08][..], Broken::Cut),
            (&[0x0a, 0x05, 1], Broken::Cut),
            (&[0x09, 1, 2, 3], Broken::Cut),
            (&[0x00, 0x01], Broken::FieldZero),
            (&[0x0b], Broken::WireType(3)),
            (&[0xff; 11], Broken::LongVarint),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Broken::Cut),
        ] {
            let got = next_field(&mut Bytes::copy_from_slice(input));
            assert_eq!(got.unwrap_err(), broken, "{input:02x?}");
            assert!(!broken.as_str().is_empty());
        }
    }

    #[test]
    fn varints_round_trip_at_their_bounds() {
        for value in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            let mut out = BytesMut::new();
            put_present_varint_field(1, value, &mut out);
            let mut input = out.freeze();
            let (number, Value::Varint(got)) = next_field(&mut input).unwrap().unwrap() else {
                panic!("not a varint");
            };
            assert_eq!((number, got, input.len()), (1, value, 0));
        }
    }
}
