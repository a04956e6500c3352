//! Takes up what the provider and the federation publish: merges the two, makes a revision of it,
//! compiles it, keeps the findings.

use std::sync::Arc;

use discovery::Catalog;
use model::code::TRUST_DOMAIN_CONFLICT;
use model::{
    ClusterName, Diagnostic, Resource, ResourceSet, Severity, Snapshot, TrustDomain, compile,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bundles::Polled;
use crate::cordon::{self, CordonWatch};
use crate::fleet;
use crate::kubernetes::{Derived, changed};
use crate::limits::DIAGNOSTICS_MAX;
use crate::revisions::Revisions;

/// What the node found out about the objects that it serves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    pub(crate) discovery: Vec<Diagnostic>,
    /// Of what comes from the federation's store.
    pub(crate) federation: Vec<Diagnostic>,
    pub(crate) revisions: Vec<Diagnostic>,
    pub(crate) compile: Vec<Diagnostic>,
    pub(crate) snapshot: Arc<Snapshot>,
}

/// What this cluster gets from the federation, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) resources: Vec<Resource>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// There is something, but it is not known: nothing is to change until it is.
    pub(crate) awaited: bool,
}

/// This cluster's own objects, of all providers, now and whenever they change. `None` until every
/// provider has read all there is: what is missing till then is not to be taken back.
pub(crate) type Catalogs = watch::Receiver<Option<Arc<Catalog>>>;

/// From catalogs to revisions.
#[derive(Debug)]
pub(crate) struct Intake {
    cluster: ClusterName,
    trust_domain: TrustDomain,
    revisions: Arc<Revisions>,
    cordons: CordonWatch,
    polled: watch::Receiver<Arc<Polled>>,
    findings: watch::Sender<Arc<Findings>>,
}

impl Intake {
    pub(crate) fn new(
        cluster: ClusterName,
        trust_domain: TrustDomain,
        revisions: Arc<Revisions>,
        cordons: CordonWatch,
        polled: watch::Receiver<Arc<Polled>>,
    ) -> Self {
        let findings = watch::Sender::default();
        Self { cluster, trust_domain, revisions, cordons, polled, findings }
    }

    pub(crate) fn findings(&self) -> Arc<Findings> {
        self.findings.borrow().clone()
    }

    /// The findings, now and after each catalog.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Findings>> {
        self.findings.subscribe()
    }

    /// One catalog, what the federation adds to it, and what the node derives from both. Computes
    /// for a while on a large one: not for a runtime's worker.
    pub(crate) fn take_up(&self, catalog: Option<&Catalog>, shared: &Shared, derived: &Derived) {
        let Some(catalog) = catalog else {
            tracing::info!(
                "this cluster's objects are not known yet; gateways keep what they have"
            );
            return;
        };
        if shared.awaited {
            tracing::error!("what the federation has said is lost; gateways keep what they have");
            return;
        }
        if *derived == Derived::Awaited {
            tracing::info!("the ports of imports are not known yet; gateways keep what they have");
            return;
        }
        let (mut resources, hidden) = fleet::merge(&catalog.resources, shared.resources.clone());
        let polled = self.polled.borrow().clone();
        polled.renew(&catalog.resources, &mut resources);
        let refused = derived.add_to(&mut resources);
        cordon::mark(&mut resources, &self.cordons.borrow());
        let published = self.revisions.publish(&resources);
        let compiled = published.intent_changed.then(|| self.compile());
        if let Some(revision) = published.revision {
            let objects = resources.len();
            tracing::info!(%revision, objects, "new revision");
        }
        let mut findings = (*self.findings()).clone();
        findings.discovery = bounded([catalog.diagnostics.clone(), refused].concat());
        findings.federation =
            bounded([shared.diagnostics.clone(), hidden, polled.findings()].concat());
        findings.revisions = bounded(published.diagnostics);
        if let Some((snapshot, diagnostics)) = compiled {
            findings.snapshot = Arc::new(snapshot);
            findings.compile = bounded(diagnostics);
        }
        self.findings.send_replace(Arc::new(findings));
    }

    /// Takes up catalogs, and what is added to them, until the node stops. The providers coalesce
    /// changes, and the channels have only the newest, so this cannot fall behind.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut catalogs: Catalogs,
        mut shared: watch::Receiver<Arc<Shared>>,
        mut derived: watch::Receiver<Arc<Derived>>,
        stop: CancellationToken,
    ) {
        let (mut cordons, mut polled) = (self.cordons.clone(), self.polled.clone());
        loop {
            tokio::select! {
                () = changed(&mut catalogs) => {}
                () = changed(&mut shared) => {}
                () = changed(&mut derived) => {}
                () = changed(&mut cordons) => {}
                () = changed(&mut polled) => {}
                () = stop.cancelled() => return,
            }
            let catalog = catalogs.borrow_and_update().clone();
            let added = shared.borrow_and_update().clone();
            let derived = derived.borrow_and_update().clone();
            let intake = self.clone();
            let take_up = move || intake.take_up(catalog.as_deref(), &added, &derived);
            let done = tokio::task::spawn_blocking(take_up).await;
            if let Err(problem) = done {
                tracing::error!(%problem, "a catalog was not taken up; the last one stays");
            }
        }
    }

    fn compile(&self) -> (Snapshot, Vec<Diagnostic>) {
        let (revision, resources) = self.revisions.resources();
        let (snapshot, mut diagnostics) = compile(&self.cluster, revision, &resources);
        diagnostics.extend(own_domain_claims(&self.trust_domain, &resources));
        for diagnostic in &diagnostics {
            tracing::warn!(%diagnostic, "finding");
        }
        (snapshot, diagnostics)
    }
}

/// Peers that claim this cluster's own trust domain: gateways give them none of it.
pub(crate) fn own_domain_claims(own: &TrustDomain, resources: &ResourceSet) -> Vec<Diagnostic> {
    let claim = |resource: &Resource| {
        let Resource::ClusterPeer(peer) = resource else { return None };
        let mut bundles = peer.trust_bundles.iter();
        let index = bundles.position(|bundle| bundle.trust_domain == *own)?;
        Some(Diagnostic {
            severity: Severity::Error,
            code: TRUST_DOMAIN_CONFLICT,
            object: resource.key().to_string(),
            field: format!("spec.trustDomains[{index}].name"),
            message: format!("{own} is this cluster's own trust domain"),
            fix: "remove the entry; each trust domain has one owner".into(),
        })
    };
    resources.values().filter_map(claim).collect()
}

fn bounded(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.truncate(DIAGNOSTICS_MAX);
    diagnostics
}
