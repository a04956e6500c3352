//! Many gateways of one cluster, as their node meets them: each is a gateway's own state and its own
//! code for the resource stream. What is not here is what the node never sees: workers, listeners,
//! compilation.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use gateway::access_log::AccessLog;
use gateway::config::{GatewayConfig, Overrides};
use gateway::control::Event;
use gateway::state::GatewayState;
use gateway::subscribe::keep_subscribed;
use identity::{Ca, IdentityCell, SvidKeyPair};
use model::Revision;
use tokio::sync::mpsc;
use wire::resource::{Ack, Delta};

use super::relay::Relay;

const SVID_LIFETIME: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Herd(Vec<One>);

#[derive(Debug)]
struct One {
    state: Arc<GatewayState>,
    has: Arc<Mutex<Has>>,
}

/// What a gateway was told.
#[derive(Debug, Default)]
struct Has {
    revision: Option<Revision>,
    objects: usize,
}

impl Herd {
    /// Enrolled by the node's own CA, whose folder this is, and on their way to the node.
    pub(super) fn start(count: usize, folder: &Path, ca: &Ca, relay: &Relay) -> Self {
        let (log, _writer) = AccessLog::open(&folder.join("herd.log")).unwrap();
        let start = |number: usize| {
            let config = configured(&format!("gw-{number}"), folder, relay);
            let identity = Arc::new(IdentityCell::default());
            let state = Arc::new(GatewayState::new(config, identity, log.clone()));
            enrol(&state, ca);
            let (events, inbox) = mpsc::channel(16);
            let has = Arc::default();
            tokio::spawn(keep_subscribed(state.clone(), events));
            tokio::spawn(follow(state.clone(), inbox, Arc::clone(&has)));
            One { state, has }
        };
        Self((0..count).map(start).collect())
    }

    /// How many have this revision and that many objects, by a stream that is up.
    pub(super) fn having(&self, revision: Revision, objects: usize) -> usize {
        let current = |one: &&One| {
            let has = one.has.lock().unwrap_or_else(PoisonError::into_inner);
            one.state.is_stream_up() && has.revision == Some(revision) && has.objects == objects
        };
        self.0.iter().filter(current).count()
    }

    pub(super) fn subscribed(&self) -> usize {
        self.0.iter().filter(|one| one.state.is_stream_up()).count()
    }
}

fn configured(name: &str, folder: &Path, relay: &Relay) -> GatewayConfig {
    let address = relay.address;
    let text = format!(
        "\
apiVersion: fedgate.dev/v1alpha1
kind: GatewayConfig
cluster: east
trustDomain: east.example
dataDir: {name}
listen: {{tunnel: \"127.0.0.1:0\", routes: 127.0.0.1, relay: \"127.0.0.1:0\"}}
federation: {{address: \"{address}\", relayAddress: \"{address}\", bundle: bundle.json, token: token}}
admin: {{listen: \"127.0.0.1:0\"}}
workers: 1
accessLog: {{path: herd.log}}
"
    );
    let overrides = Overrides { name: Some(name.into()), pod_ip: None };
    GatewayConfig::from_yaml_with(&text, &folder.join("gateway.yaml"), &overrides).unwrap()
}

fn enrol(state: &GatewayState, ca: &Ca) {
    let keys = SvidKeyPair::generate().unwrap();
    let csr = keys.csr_der(&state.own_id).unwrap();
    let chain = ca.issue(&csr, &state.own_id, SVID_LIFETIME, SystemTime::now()).unwrap();
    state.identity.replace_svid(keys.into_svid(chain).unwrap());
}

/// In the place of a gateway's control task: takes what comes, and says so.
async fn follow(state: Arc<GatewayState>, mut inbox: mpsc::Receiver<Event>, has: Arc<Mutex<Has>>) {
    while let Some(event) = inbox.recv().await {
        let Event::Delta(delta, reply) = event else { continue };
        let revision = delta.to;
        note(&has, &delta);
        state.set_revision(revision);
        let _gone = reply.send(Ok(Ack { revision, diagnostics: vec![] }));
    }
}

/// Objects are only counted: a test's catalog changes by whole objects that come and go.
fn note(has: &Mutex<Has>, delta: &Delta) {
    let mut has = has.lock().unwrap_or_else(PoisonError::into_inner);
    let before = if delta.from.is_none() { 0 } else { has.objects };
    has.objects = before + delta.upserts.len() - delta.removes.len();
    has.revision = Some(delta.to);
}
