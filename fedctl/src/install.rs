//! Installing by Helm: values that fit the cluster, each with its reason.

mod decide;
mod helm;
mod values;

pub use decide::{KUBERNETES_MINOR_MIN, Wishes, decide};
pub use helm::{Charts, Helm, Wanted};
pub use values::{Choice, Values};
