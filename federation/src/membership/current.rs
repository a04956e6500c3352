//! The node that is in force: leaving a federation ends one and begins another, with a new key.

use std::sync::{Arc, PoisonError, RwLock};

use super::node::Node;

/// Where the services find the node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Current(Arc<RwLock<Arc<Node>>>);

impl Current {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self(Arc::new(RwLock::new(node)))
    }

    pub(crate) fn node(&self) -> Arc<Node> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace(&self, node: Arc<Node>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = node;
    }
}
