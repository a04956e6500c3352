//! Tunnels over real UDP with real certificates, every gateway with workers in threads of their own.

mod admission;
mod congestion;
mod exchange;
mod faults;
mod moving;
mod site;
mod stalls;
mod steering;
mod stranger;
