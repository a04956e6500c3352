//! The gateway's identity: its SVID from disk, else by enrolment at the federation node; renewed
//! every hour; and the cluster's own trust bundle beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use identity::{IdentityCell, Svid, SvidKeyPair, SvidStore};
use model::code::{self, Code};
use model::{ClusterId, TrustBundle};
use rustls_pki_types::CertificateDer;
use tokio::time::{sleep, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status};
use wire::bundle::{format_bundle, parse_bundle};
use wire::resource::proto::enrolment_service_client::EnrolmentServiceClient;
use wire::resource::{EnrolRequest, EnrolResponse, proto};

use crate::backoff::Backoff;
use crate::config::FederationLink;
use crate::federation::{self, BundleMissing, Shown};
use crate::files::write_private;
use crate::limits::FEDERATION_CALL_TIMEOUT;
use crate::state::GatewayState;

/// Files of the gateway's identity in its data folder.
#[derive(Debug)]
pub struct IdentityFiles {
    svids: SvidStore,
    bundle: PathBuf,
    cluster_id: PathBuf,
}

/// What the files held.
#[derive(Debug, Default)]
pub struct Kept {
    pub svid: Option<Svid>,
    pub cluster: Option<OwnCluster>,
}

/// What enrolment tells of the cluster besides the SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCluster {
    /// What gateways and workloads of the cluster are verified with.
    pub bundle: TrustBundle,
    pub id: ClusterId,
}

impl IdentityFiles {
    /// Makes `svid/` in the data folder, mode 0700.
    pub fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let folder = data_dir.join("svid");
        let svids = SvidStore::open(&folder).map_err(coded)?;
        let (bundle, cluster_id) = (folder.join("bundle.json"), folder.join("cluster-id"));
        Ok(Self { svids, bundle, cluster_id })
    }

    /// A key that others can read stops the gateway: whoever read it can pose as this gateway. An
    /// SVID of another name or an unreadable one is left aside, and enrolment replaces it.
    pub fn load(&self, state: &GatewayState) -> anyhow::Result<Kept> {
        let svid = match self.svids.load() {
            Ok(svid) => svid,
            Err(error) if error.code() == code::KEY_PERMISSIONS => return Err(coded(error)),
            Err(error) => {
                tracing::warn!(code = %error.code(), %error, "the SVID on disk is not used");
                None
            }
        };
        let svid = svid.filter(|svid| {
            let own = *svid.id() == state.own_id;
            if !own {
                tracing::warn!(found = %svid.id(), own = %state.own_id, "an SVID of another name");
            }
            own
        });
        let cluster = self.load_bundle(state).zip(self.load_cluster_id());
        Ok(Kept { svid, cluster: cluster.map(|(bundle, id)| OwnCluster { bundle, id }) })
    }

    fn load_cluster_id(&self) -> Option<ClusterId> {
        let bytes = match fs::read(&self.cluster_id) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.cluster_id.display(), %error, "the id is not used");
                return None;
            }
        };
        let id = bytes.try_into().map(ClusterId::from_bytes);
        if id.is_err() {
            let path = self.cluster_id.display();
            tracing::warn!(%path, "the cluster's id is not used: it has not 16 bytes");
        }
        id.ok()
    }

    fn load_bundle(&self, state: &GatewayState) -> Option<TrustBundle> {
        let text = match fs::read_to_string(&self.bundle) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.bundle.display(), %error, "the bundle is not used");
                return None;
            }
        };
        parse_bundle(&text, &state.config.trust_domain)
            .inspect_err(|error| {
                tracing::warn!(path = %self.bundle.display(), %error, "the bundle is not used");
            })
            .ok()
    }

    fn save(&self, svid: &Svid, cluster: &OwnCluster) -> anyhow::Result<()> {
        // These first: an SVID without them could not be used after a restart.
        write_private(&self.cluster_id, cluster.id.as_bytes())
            .with_context(|| format!("failed to write {}", self.cluster_id.display()))?;
        let text = format_bundle(&cluster.bundle)?;
        write_private(&self.bundle, text.as_bytes())
            .with_context(|| format!("failed to write {}", self.bundle.display()))?;
        self.svids.save(svid).map_err(coded)
    }
}

fn coded(error: identity::SvidError) -> anyhow::Error {
    anyhow::anyhow!("{}: {error}", error.code())
}

/// Keeps the gateway's SVID fresh. `enrolled` is told about each new identity; the first one lets
/// the tunnel begin.
pub async fn keep_enrolled(
    state: Arc<GatewayState>,
    files: IdentityFiles,
    enrolled: impl Fn(OwnCluster),
) {
    let mut backoff = Backoff::default();
    loop {
        wait_until_due(&state.identity).await;
        match enrol(&state, &files).await {
            Ok(cluster) => {
                backoff.reset();
                state.set_identity_problem(None);
                enrolled(cluster);
            }
            Err(error) => {
                let code = problem_code(&state, &error);
                let text = format!("{error:#}");
                let wait = backoff.next(&mut rand::rng());
                tracing::warn!(%code, error = text, retry_in_ms = wait.as_millis() as u64, "not enrolled");
                state.set_identity_problem(Some((code, text)));
                sleep(wait).await;
            }
        }
    }
}

fn problem_code(state: &GatewayState, error: &anyhow::Error) -> Code {
    if let Some(missing) = error.downcast_ref::<BundleMissing>() {
        return missing.code();
    }
    let identity = state.identity.load();
    if identity.svid.is_none() {
        return code::SVID_MISSING;
    }
    let expired = identity.svid.as_ref().is_some_and(|svid| svid.is_expired(SystemTime::now()));
    if expired { code::SVID_EXPIRED } else { code::FEDERATION_UNREACHABLE }
}

/// Wakes up often enough that a clock that was set does not matter for long, and that a gateway whose SVID
/// was revoked is back soon.
async fn wait_until_due(identity: &IdentityCell) {
    const LOOK_AGAIN: Duration = Duration::from_secs(1);
    loop {
        let now = SystemTime::now();
        if identity.renewal_due(now) {
            return;
        }
        let due = identity.load().svid.as_ref().map_or(now, |svid| svid.renew_at());
        sleep(due.duration_since(now).unwrap_or_default().min(LOOK_AGAIN)).await;
    }
}

async fn enrol(state: &GatewayState, files: &IdentityFiles) -> anyhow::Result<OwnCluster> {
    let keys = SvidKeyPair::generate().map_err(coded)?;
    let csr_der = keys.csr_der(&state.own_id).map_err(coded)?;
    let request = EnrolRequest { gateway: state.config.name.clone(), csr_der };
    let response = ask(state, &request).await?;
    let chain = response.chain_der.into_iter().map(CertificateDer::from).collect();
    let svid = keys.into_svid(chain).map_err(coded)?;
    if *svid.id() != state.own_id {
        bail!("the federation node issued an SVID for {}, not for {}", svid.id(), state.own_id);
    }
    let bundle = response.bundle;
    if bundle.trust_domain != state.config.trust_domain {
        let (theirs, ours) = (&bundle.trust_domain, &state.config.trust_domain);
        bail!("the federation node's trust domain is {theirs}, and trustDomain here is {ours}");
    }
    let cluster = OwnCluster { bundle, id: response.cluster_id };
    if let Err(error) = files.save(&svid, &cluster) {
        tracing::error!(
            error = format!("{error:#}"),
            "the SVID works, but a restart will need to enrol"
        );
    }
    tracing::info!(spiffe_id = %svid.id(), "enrolled");
    state.identity.replace_svid(svid);
    Ok(cluster)
}

/// With the pod's token, where there is one. The SVID is shown only if nobody can say whose the
/// token is: an SVID of a CA that is no more would be refused, and enrolment is what mends that.
async fn ask(state: &GatewayState, request: &EnrolRequest) -> anyhow::Result<EnrolResponse> {
    let token = match &state.config.federation {
        FederationLink::Sockets { .. } => None,
        FederationLink::Tcp(link) => Some(federation::read_token(&link.token)?),
    };
    let mut answer = call(state, Shown::Nothing, request, token.as_ref()).await?;
    if answer.as_ref().is_err_and(federation::is_unreviewed)
        && federation::has_live_svid(&state.identity, SystemTime::now())
    {
        answer = call(state, Shown::Svid, request, token.as_ref()).await?;
    }
    Ok(EnrolResponse::decode(answer.map_err(federation::explain)?)?)
}

/// The node's answer, or why there is none.
async fn call(
    state: &GatewayState,
    shown: Shown,
    request: &EnrolRequest,
    token: Option<&MetadataValue<Ascii>>,
) -> anyhow::Result<Result<proto::EnrolResponse, Status>> {
    let call = async {
        let channel = federation::connect(state, shown).await?;
        let mut request = Request::new(request.encode());
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        let answer = EnrolmentServiceClient::new(channel).enrol(request).await;
        anyhow::Ok(answer.map(Response::into_inner))
    };
    let answer = timeout(FEDERATION_CALL_TIMEOUT, call).await;
    answer.with_context(|| format!("no answer from {}", state.config.federation))?
}
