//! Integration tests of `wire`: one binary, a module per format.

mod tunnel;
