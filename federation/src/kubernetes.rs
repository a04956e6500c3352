//! What the node does in a Kubernetes cluster beside reading it: it writes, and nothing else does
//! (DESIGN §12).
//!
//! A [`Writer`] says what should be there, purely; [`writer::run`] compares that with what is, and
//! applies the difference on the server (server-side apply, field manager `fedgate`). One node of a
//! cluster writes at a time, the holder of the Lease ([`lease`]). What is wholly Fedgate's has an
//! [`owner`], with which it goes when the release is uninstalled.
//!
//! | writer | what it writes |
//! |---|---|
//! | [`trust`] | ConfigMap `fedgate-trust` |
//! | [`gateway_api`] | status of GatewayClasses, Gateways and routes; a Service for each Gateway |
//! | [`own`] | status of Fedgate's own kinds; a ClusterPeer for each other member |
//!
//! To add one: implement [`Writer`] and start it in [`Cluster::start_writers`].
//! `docs/reference/kubernetes-objects.md` lists all that is written, and the RBAC rules for it.

mod addresses;
mod apply;
mod calls;
mod candidate;
mod connection;
mod drift;
mod events;
mod gateway_api;
#[cfg(test)]
mod golden;
mod health;
mod kinds;
mod lease;
mod mcs;
mod names;
mod own;
mod owner;
mod tokens;
mod trust;
mod writer;

use std::sync::Arc;

use discovery::kubernetes::Cache;
use identity::Ca;
use model::ClusterName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::config::KubernetesConfig;
use crate::gateways::Gateways;
use crate::intake::{Catalogs, Findings, Shared};
use crate::membership::Membership;
pub(crate) use apply::{Observed, Write};
pub(crate) use connection::Connection;
pub(crate) use health::Health;
pub(crate) use mcs::Derived;
pub(crate) use tokens::{Bearer, Token, TokenError, TokenReviewer};
pub(crate) use writer::{Owned, Writer, changed};

/// On objects of ours: which writer keeps them.
pub(crate) const WRITER_LABEL: &str = "fedgate.dev/writer";

/// What the rest of the node gives to this part.
pub(crate) struct Surroundings {
    pub(crate) name: ClusterName,
    pub(crate) ca: Arc<Ca>,
    /// The CA's bundle is another one.
    pub(crate) rotated: watch::Receiver<u64>,
    pub(crate) membership: Membership,
    pub(crate) gateways: Gateways,
    /// Of changes that objects ask for.
    pub(crate) audit: Arc<Audit>,
    /// This cluster's own objects, of all providers.
    pub(crate) catalogs: Catalogs,
    /// What the federation adds to them.
    pub(crate) shared: watch::Receiver<Arc<Shared>>,
    /// What was found about both.
    pub(crate) findings: watch::Receiver<Arc<Findings>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// What every writer may use.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: kube::Client,
    pub(crate) config: Arc<KubernetesConfig>,
    /// This process in the election, and in what it tells.
    pub(crate) identity: String,
    pub(crate) around: Arc<Surroundings>,
    /// Objects of the node's own making, put into service beside catalog and federation.
    pub(crate) derived: watch::Sender<Arc<Derived>>,
    /// Whether this node is the one that writes.
    pub(crate) leader: watch::Receiver<bool>,
    pub(crate) health: Arc<Health>,
    /// What the API server has, this node's own objects included.
    pub(crate) cache: Arc<Cache>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts the election and every writer. `leads` is the other end of `self.leader`.
    fn start_writers(&self, leads: watch::Sender<bool>) {
        self.around.tasks.spawn(lease::run(self.clone(), leads));
        self.around.tasks.spawn(events::run(self.clone()));
        self.start(trust::TrustWriter::new(self));
        self.start(gateway_api::GatewayApiWriter::new(self));
        self.start(mcs::McsWriter::new(self));
        own::start(self);
        self.around.tasks.spawn(mcs::keep_derived(self.clone()));
    }

    /// Runs a writer until the node stops.
    fn start<W: Writer>(&self, writer: W) {
        let pen = writer::Pen {
            client: self.client.clone(),
            owner: self.owner(),
            health: self.health.clone(),
            leader: self.leader.clone(),
            stop: self.around.stop.clone(),
            look: drift::look_into(self.cache.clone()),
        };
        self.around.tasks.spawn(writer::run(writer, pen));
    }

    /// Of all that is made here.
    fn owner(&self) -> owner::Owner {
        owner::Owner::new(self.client.clone(), self.config.owned_by.clone())
    }
}

/// A finding's message without the place where the object was read, which on an object of the API
/// server's is clear.
fn without_place(message: &str) -> &str {
    message.trim_end_matches(" (kubernetes)")
}
