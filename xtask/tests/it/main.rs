//! Applies the rules to the whole tree and compares the generated pages with the code.

mod reference;
mod tree;
