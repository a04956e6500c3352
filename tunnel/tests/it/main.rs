//! Tunnels over real UDP with real certificates, every gateway with workers in threads of their own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod admission;
mod congestion;
mod exchange;
mod fallback;
mod faults;
mod hostile;
mod moving;
mod ping;
mod relay;
mod relay_fallback;
mod replace;
mod site;
mod spread;
mod stalls;
mod steering;
mod stranger;
