//! What a simulation is about: a machine, what clients ask of it, and what must hold of it besides
//! being the same everywhere.

use federation::store::Machine;

use super::dice::Dice;

/// A machine whose states can be compared.
pub(crate) trait Subject: Machine + std::fmt::Debug {
    /// Its clients.
    type Clients: Clients<Self>;

    fn print(&self) -> u64;
}

/// Makes commands, and judges what came of them.
pub(crate) trait Clients<S>: Sized {
    fn new(seed: u64) -> Self;

    /// The first command of the store.
    fn first(&mut self) -> Vec<u8>;

    /// A new request of a client.
    fn request(&mut self, client: u8, model: &S, dice: &mut Dice) -> Vec<u8>;

    /// The same request again, in other bytes if that is how retries can be told apart.
    fn retry(&mut self, request: &[u8]) -> Vec<u8>;

    /// A node has this state now; those who watch it learn of it.
    fn watch(&mut self, _node: u64, _machine: &S) -> Result<(), String> {
        Ok(())
    }

    /// Whether the state of some node is one that may be.
    fn judge(&self, machine: &S) -> Result<(), String>;
}
