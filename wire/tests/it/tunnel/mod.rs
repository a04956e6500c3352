//! Tunnel v1 from the outside: the document's vectors and tables, the decoder, the rules of order,
//! and random bytes.

mod built;
mod decoder;
mod document;
mod encoding;
mod random;
mod samples;
mod show;
mod vectors;
