//! Bounds of imports and exports on Kubernetes.

use std::time::Duration;

/// Gateway pods that a derived Service leads to: as many as Kubernetes puts into one EndpointSlice.
pub const IMPORT_GATEWAYS_MAX: usize = 100;
/// How long a port of the pool that was freed is not given out again.
pub const IMPORT_PORT_REST: Duration = Duration::from_secs(60);
/// From so many ServiceImports on, losing over half of them at once is held for a while ...
pub const IMPORTS_LOST_MIN: usize = 10;
/// ... namely for so long, unless they come back.
pub const IMPORTS_LOST_HOLD: Duration = Duration::from_secs(30);
/// Bytes of a condition's message; Kubernetes has room for 32 KiB.
pub const CONDITION_MESSAGE_MAX: usize = 4096;
