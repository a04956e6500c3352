//! What Fedgate processes say to each other: formats, their limits, and strict conversions to the
//! nouns of `model`. No sockets and no clock: bytes in, values out.

pub mod tunnel;
