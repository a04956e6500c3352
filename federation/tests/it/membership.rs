//! A federation from its founding to the last cluster that leaves it: real nodes, gateways and
//! sockets, in one process.

mod join;
mod life;
mod site;
