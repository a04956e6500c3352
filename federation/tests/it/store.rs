//! The store's consensus: real disks where the disk is the subject, else disks in memory and a
//! paused clock, so that elections take no time and nothing depends on the machine's load.

mod cluster;
mod durable;
mod elections;
mod files;
mod fixture;
mod members;
