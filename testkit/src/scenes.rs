//! What is done to real processes while an outside client calls them, in as many rounds as are asked for:
//! few in tests, many in `make soak`.

pub mod joins;
pub mod leaders;
pub mod path;
pub mod rolling;
