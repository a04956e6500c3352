//! Applies the rules to the whole tree and compares the generated pages with the code.

mod charts;
mod failures;
mod pages;
mod reference;
mod tables;
mod tree;
