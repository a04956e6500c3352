//! The store of several sites' real processes: founding it, letting others in, finding its leader.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fedctl::operator::Operator;
use wan::Impairment;
use wan::relay::{LinkConfig, RelayConfig, UdpRelay};
use wire::operator::proto::join_event::Event;
use wire::operator::proto::{FoundRequest, GetStoreRequest, IssueTokenRequest, Store};

use crate::{Site, wait};

const LIMIT: Duration = Duration::from_secs(30);
/// A node that is paused answers nothing.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// Adds the `store` part to a site's configuration, before its node is started.
pub fn configure(site: &Site, yaml: &str) -> anyhow::Result<()> {
    let mut file = File::options().append(true).open(site.spec.folder.join("federation.yaml"))?;
    Ok(writeln!(file, "store: {yaml}")?)
}

/// A connection to the site's running node.
pub async fn operator(site: &Site) -> anyhow::Result<Operator> {
    let socket = site.spec.folder.join("operator.sock");
    Operator::connect(&socket).await.map_err(|error| anyhow::anyhow!("{error}"))
}

/// The first site founds, the others join by a token each. Returns how long each join took, from
/// the text of the token to the last word about it.
pub async fn found_and_join(sites: &[Site]) -> anyhow::Result<Vec<Duration>> {
    let [root, others @ ..] = sites else { anyhow::bail!("no site") };
    let inviter = operator(root).await?;
    inviter.found(FoundRequest {}).await.map_err(anyhow::Error::msg)?;
    let mut took = Vec::new();
    for site in others {
        let request = IssueTokenRequest {
            name: site.spec.name.clone(),
            roles: "admit,export".into(),
            delegation_depth: 1,
            ..IssueTokenRequest::default()
        };
        let what = format!("a token for {}", site.spec.name);
        // Until the gateway answers on the cluster's own address.
        let issued = wait::until_async(&what, LIMIT, async || {
            inviter.issue_token(request.clone()).await.ok()
        });
        let text = issued.await.text;
        let joiner = operator(site).await?;
        let begun = Instant::now();
        let mut events = joiner.join(text, LIMIT).await.map_err(anyhow::Error::msg)?;
        let mut joined = false;
        while let Some(event) = events.message().await.context("join")? {
            joined |= matches!(event.event, Some(Event::Joined(_)));
        }
        ensure!(joined, "{} did not say that it has joined", site.spec.name);
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// What a site's node says of the store; `None` if it says nothing soon.
pub async fn status(site: &Site) -> Option<Store> {
    let asked = async { operator(site).await.ok()?.get_store(GetStoreRequest {}).await.ok() };
    tokio::time::timeout(ASK_TIMEOUT, asked).await.ok().flatten()
}

/// Who leads, and in which term, as the one of these sites says who is furthest ahead.
pub async fn leader(sites: &[&Site]) -> Option<(u64, String)> {
    let mut newest = None;
    for site in sites {
        let Some(store) = status(site).await else { continue };
        let said = store.term.filter(|_| !store.leader.is_empty()).map(|term| (term, store.leader));
        newest = newest.max(said);
    }
    newest
}

/// Waits until the store has so many voters, and all of them follow one leader.
pub async fn settled(sites: &[Site], voters: usize) -> anyhow::Result<(u64, String)> {
    let looking = wait::until_async("voters that follow one leader", LIMIT, async || {
        let mut leaders = Vec::new();
        for site in sites {
            let store = status(site).await?;
            (store.voters.len() == voters && !store.leader.is_empty()).then_some(())?;
            leaders.push((store.term?, store.leader));
        }
        leaders.dedup();
        (leaders.len() == 1).then(|| leaders.remove(0))
    });
    Ok(looking.await)
}

/// Where all others reach the gateways of these sites: packets between two of them take so long one
/// way. Works until it is dropped.
pub fn relay(sites: &[Site], one_way: Duration) -> anyhow::Result<UdpRelay> {
    let mut links = Vec::new();
    for to in sites {
        for from in sites {
            // A cluster tries its own public address when it makes a token.
            let (name, delay) = match from.spec.name == to.spec.name {
                true => (format!("{}-itself", to.spec.name), Duration::ZERO),
                false => (from.spec.name.clone(), one_way),
            };
            links.push(
                LinkConfig::new(name, &to.spec.name)
                    .listen(to.spec.advertise)
                    .client(from.spec.tunnel.ip())
                    .target(to.spec.tunnel)
                    .impaired(Impairment::delayed(delay)),
            );
        }
    }
    UdpRelay::spawn_thread(RelayConfig { links, seed: 1 }).context("start the relay")
}
