//! Measurements against a named peer in the same run: here, a direct connection to the origin.
//!
//! `make bench-smoke` runs [`smoke`] and [`wan`], `make bench-store` [`store`], `make bench-scale`
//! [`scale`] and [`etcd`], `make bench-far` [`far`]; `docs/reference/performance.md` has the figures.

pub mod etcd;
pub mod far;
pub mod load;
pub mod origin;
pub mod pair;
pub mod proc;
pub mod scale;
pub mod smoke;
pub mod store;
pub mod wan;
