//! The project's own chores: `tidy` (the rules that rustc and clippy do not know), the generated
//! reference pages, and the runner that counts the tests. Nothing here is part of the product.

pub mod finding;
pub mod markdown;
pub mod reference;
pub mod repo;
pub mod tally;
pub mod tidy;
