//! Impairments as pure data and a pure pipeline: packets and the time go in, packets and times come out.

mod counters;
mod dice;
mod pipe;
mod settings;

pub use counters::{Counters, DropReason, Drops};
pub use pipe::Pipe;
pub use settings::{GilbertElliott, Impairment, Loss, Rate};
