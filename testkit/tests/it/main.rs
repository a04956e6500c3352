//! Whole fleets: the demo as a user runs it, and real processes in network namespaces.

mod canary;
mod demo;
mod guide;
mod namespaces;
