//! A federation from its founding to the last cluster that leaves it: real nodes, gateways and
//! sockets, in one process.

mod again;
mod join;
mod life;
mod load;
mod out;
mod recovery;
mod roots;
mod secret;
mod site;
mod stolen;
