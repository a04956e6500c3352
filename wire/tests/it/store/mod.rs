//! The store's formats from the outside: vectors, the page's tables, the Merkle tree, random bytes.

mod built;
mod document;
mod merkle;
mod random;
mod samples;
mod show;
mod spoilt;
mod vectors;
