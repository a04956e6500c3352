//! Tests of the fleet as a whole; those of single tables stand beside them.

mod commands;
mod cost;
mod fixture;
mod members;
mod own;
mod random;
mod reading;
mod refusals;
mod serving;
mod stored;
