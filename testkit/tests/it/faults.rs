//! Faults of real processes, real disks and the paths between them, as an outside client and the ledger
//! of acknowledged writes see them. Each promise is a row of `docs/reference/failure-modes.md`.

#![expect(clippy::print_stdout, reason = "a test tells what was measured")]

mod clock;
mod damage;
mod disk;
mod leaders;
mod members;
mod path;
mod power;
mod processes;
mod rolling;
