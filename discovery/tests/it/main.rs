//! Tests of translating, compiling and watching manifests, from the outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod bad_input;
mod docs;
mod dump;
mod folder;
mod golden;
mod kubernetes;
mod translate;
