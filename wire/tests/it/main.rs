//! Integration tests of `wire`: one binary, a module per format.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod store;
mod tunnel;
mod vectors;
