//! What a node needs before it can do anything: its folder, its identity, who may use it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use identity::{Ca, ClusterTrust, SvidStore};
use model::SpiffeId;
use model::code::{DATA_FOLDER_UNUSABLE, ENROLMENT_REFUSED, OPERATOR_REFUSED};
use model::spiffe::Part;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::resource::RenewSvids;

use super::coded;
use crate::applied::Applied;
use crate::audit::Audit;
use crate::bundles::Kept;
use crate::config::FederationConfig;
use crate::cordon::Cordons;
use crate::denied::Denials;
use crate::folder::DataFolder;
use crate::operator::OperatorUsers;
use crate::peer::{AllowedUsers, own_uid};
use crate::room;
use crate::rotation;
use crate::svid::OwnSvid;

/// What all parts of a node stand on.
pub(super) struct Base {
    pub(super) config: FederationConfig,
    /// Of this process.
    pub(super) uid: u32,
    pub(super) folder: DataFolder,
    pub(super) ca: Arc<Ca>,
    pub(super) svid: Arc<OwnSvid>,
    /// Of the ports for this cluster's own processes.
    pub(super) trust: Arc<ClusterTrust>,
    /// Counts the changes of the cluster's own bundle.
    pub(super) rotated: watch::Sender<u64>,
    /// Which of their SVIDs gateways are to renew.
    pub(super) renew: watch::Sender<RenewSvids>,
    /// Who may subscribe and enrol.
    pub(super) users: Arc<AllowedUsers>,
    pub(super) operators: Arc<OperatorUsers>,
    pub(super) applied: Arc<Applied>,
    pub(super) cordons: Arc<Cordons>,
    pub(super) denials: Arc<Denials>,
    /// Of other trust domains, by their endpoints.
    pub(super) bundles: Arc<Kept>,
    pub(super) audit: Arc<Audit>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Base {
    pub(super) fn open(config: FederationConfig, now: SystemTime) -> anyhow::Result<Self> {
        let uid = own_uid().context("ask the kernel for this process's user")?;
        let folder = DataFolder::open(&config.data_dir).map_err(|e| coded(e.code(), e))?;
        room::check(&config.data_dir).map_err(anyhow::Error::msg)?;
        let (ca, svid) = open_identity(&config, &folder, now)?;
        let trust = ClusterTrust::new(config.trust_domain.clone());
        trust.replace(&ca.bundle())?;
        let applied = Applied::open(&folder.join("applied")).map_err(|e| coded(e.code(), e))?;
        let cordons = Cordons::open(&config.data_dir);
        let cordons = cordons.map_err(|e| coded(DATA_FOLDER_UNUSABLE, e))?;
        let denials = Denials::open(&config.data_dir, config.trust_domain.clone());
        let denials = denials.map_err(|e| coded(DATA_FOLDER_UNUSABLE, e))?;
        let bundles = Kept::open(folder.join("bundles"), &config.bundle_sources);
        let bundles = bundles.map_err(|e| coded(e.code(), e))?;
        let audit = Audit::open(&config.data_dir, now).map_err(|e| coded(e.code(), e))?;
        Ok(Self {
            users: Arc::new(enrolment_users(&config, uid)?),
            operators: Arc::new(operators(&config, uid)?),
            applied: Arc::new(applied),
            cordons: Arc::new(cordons),
            denials: Arc::new(denials),
            bundles: Arc::new(bundles),
            audit: Arc::new(audit),
            trust: Arc::new(trust),
            rotated: watch::Sender::new(0),
            renew: watch::Sender::new(rotation::to_renew(&ca, config.svid_lifetime)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
            uid,
            folder,
            ca,
            svid,
        })
    }

    /// The users whose connections are not counted as strangers'; the operator API's gate judges
    /// each call.
    pub(super) fn callers(&self) -> AllowedUsers {
        let fix = "list it under `operators` of the federation node's configuration";
        AllowedUsers::new(self.operators.all(), OPERATOR_REFUSED, fix)
    }
}

/// The cluster's CA, and this node's own SVID.
fn open_identity(
    config: &FederationConfig,
    folder: &DataFolder,
    now: SystemTime,
) -> anyhow::Result<(Arc<Ca>, Arc<OwnSvid>)> {
    let ca = Ca::load_or_create(&folder.join("ca"), &config.trust_domain, now);
    let ca = Arc::new(ca.map_err(|e| coded(e.code(), e))?);
    let id = SpiffeId::of_part(&config.trust_domain, Part::Federation, &config.name);
    let store = SvidStore::open(&folder.join("svid")).map_err(|e| coded(e.code(), e))?;
    let svid = OwnSvid::load_or_issue(id, ca.clone(), store, config.svid_lifetime, now)?;
    Ok((ca, Arc::new(svid)))
}

/// Who may subscribe and enrol.
fn enrolment_users(config: &FederationConfig, own: u32) -> anyhow::Result<AllowedUsers> {
    let fix = "list it under `enrolment.uids` of the federation node's configuration, or run the \
               gateway as a user that is listed";
    if config.enrolment.uids.is_empty() {
        return Ok(AllowedUsers::new(BTreeSet::from([own]), ENROLMENT_REFUSED, fix));
    }
    let foreign = config.enrolment.uids.iter().find(|uid| **uid != own && **uid != 0);
    if let Some(uid) = foreign
        && config.relay_socket.starts_with(&config.data_dir)
        && !config.resource_socket.starts_with(&config.data_dir)
    {
        anyhow::bail!(
            "enrolment.uids lists Unix user {uid}, which cannot reach {} because only this node's \
             user may enter dataDir; set `sockets.relay` to a path outside of it",
            config.relay_socket.display()
        );
    }
    if let Some(uid) = foreign
        && config.resource_socket.starts_with(&config.data_dir)
    {
        anyhow::bail!(
            "enrolment.uids lists Unix user {uid}, which cannot reach {} because only this node's \
             user may enter dataDir; set `sockets.resource` to a path outside of it",
            config.resource_socket.display()
        );
    }
    Ok(AllowedUsers::new(config.enrolment.uids.clone(), ENROLMENT_REFUSED, fix))
}

/// Who may operate the node.
fn operators(config: &FederationConfig, own: u32) -> anyhow::Result<OperatorUsers> {
    let users = OperatorUsers::new(own, config.operators.clone(), config.operator_accounts.clone());
    if let Some(uid) = users.foreign()
        && config.operator_socket.starts_with(&config.data_dir)
    {
        anyhow::bail!(
            "operators lists Unix user {uid}, which cannot reach {} because only this node's user \
             may enter dataDir; set `sockets.operator` to a path outside of it",
            config.operator_socket.display()
        );
    }
    Ok(users)
}
