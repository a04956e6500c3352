//! The watch of one kind: list, then follow, then list again when the API server has forgotten where
//! we were (410).
//!
//! This is `kube::runtime::watcher` with what it lacks: a time limit on every question (a stopped
//! API server would hold it for ever), pauses that keep a resync within 5 s, a pause also after a
//! watch that ends as soon as it begins, and going on at the last version instead of a new list when
//! a connection may have died.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt};
use kube::api::{ListParams, WatchParams};
use kube::core::{DynamicObject, WatchEvent};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::cache::Cache;
use super::keeper::{Change, Event};
use super::kinds::WatchedKind;
use super::object::{self, ObjectKey};
use super::probe::Reach;
use super::served;
use crate::limits;

/// Watches a kind until nobody takes its events any more.
pub(super) struct KindWatch {
    pub(super) kind: WatchedKind,
    pub(super) client: Client,
    /// For pods: whose, by a label selector. Others are watched in the whole cluster.
    pub(super) selector: Option<String>,
    pub(super) own_namespace: Arc<str>,
    pub(super) cache: Arc<Cache>,
    pub(super) events: mpsc::Sender<(WatchedKind, Event)>,
    pub(super) reach: watch::Receiver<Reach>,
    /// As of which return of the API server the keeper was told that the kind is synced; `None` after
    /// a failure.
    pub(super) synced: Option<u64>,
}

/// What is known of the kind on the API server.
enum Position {
    Unlisted,
    /// Everything up to this resource version was seen.
    At(Served, String),
}

/// The kind as this API server has it.
#[derive(Clone)]
struct Served {
    api_version: Arc<str>,
    api: Api<DynamicObject>,
}

/// Why a list or watch ended.
enum End {
    /// The server ended it, or the connection is to be renewed: go on where it was.
    Over(Position),
    /// The position is too old, or the kind is served in another version: list again.
    Gone,
    Absent,
    Refused(String),
    Failed(Position, String),
    /// Nobody takes the events any more.
    Stopped,
}

impl<T> From<mpsc::error::SendError<T>> for End {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self::Stopped
    }
}

impl KindWatch {
    pub(super) async fn run(mut self) {
        let mut position = Position::Unlisted;
        let mut retry = Retry::new(self.kind);
        let mut last_return = 0;
        loop {
            let returns = match self.reach.wait_for(Reach::is_there).await {
                Ok(reach) => reach.returns,
                Err(_) => return,
            };
            if std::mem::replace(&mut last_return, returns) != returns {
                retry.reset();
            }
            let begun = Instant::now();
            let end = match position {
                Position::Unlisted => self.list().await,
                Position::At(served, version) => Err(self.follow(served, version).await),
            };
            let (next, event) = match end {
                Ok(listed) => {
                    retry.reset();
                    position = listed;
                    continue;
                }
                Err(End::Stopped) => return,
                Err(End::Over(next)) => (next, None),
                Err(End::Gone) => (Position::Unlisted, None),
                Err(End::Absent) => (Position::Unlisted, Some(Event::Absent)),
                Err(End::Refused(why)) => (Position::Unlisted, Some(Event::Refused(why))),
                Err(End::Failed(next, why)) => (next, Some(Event::Failed(why))),
            };
            position = next;
            let absent = matches!(event, Some(Event::Absent));
            if let Some(event) = event {
                self.synced = None;
                if self.send(event).await.is_err() {
                    return;
                }
            } else if begun.elapsed() >= Duration::from_millis(limits::RETRY_MS_MAX) {
                retry.reset(); // it went well for a while
                continue;
            }
            let pause =
                if absent { Duration::from_millis(limits::ABSENT_RETRY_MS) } else { retry.next() };
            // No pause any more when the API server is back after it was away.
            let back = self.reach.wait_for(|reach| reach.returns > returns);
            let _ = timeout(pause, back).await; // either is a reason to go on
        }
    }

    async fn send(&self, event: Event) -> Result<(), End> {
        Ok(self.events.send((self.kind, event)).await?)
    }

    /// All objects; anew when the API server was away in between, since the connection may be dead.
    async fn list(&mut self) -> Result<Position, End> {
        let returns = self.reach.borrow_and_update().returns;
        let mut reach = self.reach.clone();
        let listed = tokio::select! {
            listed = self.list_pages() => listed?,
            _ = reach.wait_for(|reach| reach.returns > returns) => {
                return Err(End::Over(Position::Unlisted));
            }
        };
        self.synced = Some(returns);
        Ok(listed)
    }

    /// All objects, page by page, in the first version that the API server serves.
    async fn list_pages(&self) -> Result<Position, End> {
        for version in self.kind.versions() {
            if !self.may_be_served(version).await? {
                continue;
            }
            match self.list_version(version).await {
                Err(End::Absent) => {}
                end => return end,
            }
        }
        Err(End::Absent)
    }

    /// Discovery lags behind what is served, above all when an API server has just started. So a
    /// version that was there is given up only when a list denies it.
    async fn may_be_served(&self, version: &'static str) -> Result<bool, End> {
        let was = self.cache.api_resource(self.kind);
        if was.is_some_and(|was| was.version == version) {
            return Ok(true);
        }
        let patience = Duration::from_millis(limits::LIST_PAGE_TIMEOUT_MS);
        let asked = served::may_be_served(&self.client, self.kind, version);
        match timeout(patience, asked).await {
            Ok(answer) => answer.map_err(|error| end_of(&error, Position::Unlisted)),
            Err(_) => {
                let why = format!("a discovery document took over {} s", patience.as_secs());
                Err(End::Failed(Position::Unlisted, why))
            }
        }
    }

    async fn list_version(&self, version: &'static str) -> Result<Position, End> {
        let served = self.served(version);
        let mut continue_token = None;
        let mut first = true;
        loop {
            let params = ListParams {
                limit: Some(limits::LIST_PAGE_OBJECTS),
                label_selector: self.selector.clone(),
                continue_token: continue_token.take(),
                ..ListParams::default()
            };
            let page = Duration::from_millis(limits::LIST_PAGE_TIMEOUT_MS);
            let list = match timeout(page, served.api.list(&params)).await {
                Ok(list) => list.map_err(|error| end_of(&error, Position::Unlisted))?,
                Err(_) => {
                    let why = format!("a page of a list took over {} s", page.as_secs());
                    return Err(End::Failed(Position::Unlisted, why));
                }
            };
            if std::mem::take(&mut first) {
                self.send(Event::Listing(version)).await?;
            }
            let changes = list.items.into_iter().filter_map(|item| self.changed(&served, item));
            self.send(Event::Objects(changes.collect())).await?;
            continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
            if continue_token.is_some() {
                continue;
            }
            let Some(version) = list.metadata.resource_version.filter(|x| !x.is_empty()) else {
                let why = "a list has no resourceVersion".to_string();
                return Err(End::Failed(Position::Unlisted, why));
            };
            self.send(Event::Listed).await?;
            return Ok(Position::At(served, version));
        }
    }

    fn served(&self, version: &'static str) -> Served {
        let resource = self.kind.api_resource(version);
        let api = match self.kind {
            WatchedKind::GatewayPod => {
                Api::namespaced_with(self.client.clone(), &self.own_namespace, &resource)
            }
            _ => Api::all_with(self.client.clone(), &resource),
        };
        Served { api_version: resource.api_version.into(), api }
    }

    /// What changed since `version`, until the watch ends for one reason or another.
    async fn follow(&mut self, served: Served, version: String) -> End {
        // What came while the API server was away is on its way; what comes later is a new return.
        let returns = self.reach.borrow_and_update().returns;
        let mut reach = self.reach.clone();
        let mut at = version;
        let mut resuming = self.synced != Some(returns);
        let result = tokio::select! {
            Err(end) = self.follow_until_end(&served, &mut at, &mut resuming) => end,
            _ = reach.wait_for(|reach| reach.returns > returns) => Broken::Over,
        };
        self.synced = (!resuming).then_some(returns);
        let is_garbled = matches!(&result, Broken::Api(kube::Error::SerdeError(_)));
        if is_garbled && self.is_denied(&served.api_version).await {
            return End::Gone;
        }
        let position = Position::At(served, at);
        match result {
            Broken::Over if self.cache.is_incomplete(self.kind) => End::Gone,
            Broken::Over => End::Over(position),
            Broken::Failed(why) => End::Failed(position, why),
            Broken::Api(error) => end_of(&error, position),
            Broken::Stopped => End::Stopped,
        }
    }

    /// kube reads the lines of a watch without a look at the answer's status, and what is served no
    /// more is answered with "404 page not found". So discovery is asked, once for each attempt.
    async fn is_denied(&self, api_version: &str) -> bool {
        let version = api_version.rsplit('/').next().unwrap_or_default();
        let patience = Duration::from_millis(limits::WATCH_START_TIMEOUT_MS);
        let asked = served::may_be_served(&self.client, self.kind, version);
        matches!(timeout(patience, asked).await, Ok(Ok(false)))
    }

    async fn follow_until_end(
        &self,
        served: &Served,
        at: &mut String,
        resuming: &mut bool,
    ) -> Result<Infallible, Broken> {
        let params = WatchParams {
            label_selector: self.selector.clone(),
            timeout: Some(limits::WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let start = Duration::from_millis(limits::WATCH_START_TIMEOUT_MS);
        let Ok(opened) = timeout(start, served.api.watch(&params, at)).await else {
            return Err(Broken::Failed(format!("no answer within {} s", start.as_secs())));
        };
        let stream = opened.map_err(Broken::Api)?;
        let patience = Duration::from_secs(limits::WATCH_SECONDS.into())
            + Duration::from_millis(limits::WATCH_END_GRACE_MS);
        match timeout(patience, self.take_events(served, at, resuming, stream)).await {
            Ok(Err(broken)) => Err(broken),
            Err(_) => Err(Broken::Over),
        }
    }

    async fn take_events(
        &self,
        served: &Served,
        at: &mut String,
        resuming: &mut bool,
        stream: impl Stream<Item = kube::Result<WatchEvent<DynamicObject>>>,
    ) -> Result<Infallible, Broken> {
        let mut batches = std::pin::pin!(stream.ready_chunks(limits::EVENTS_PER_BATCH_MAX));
        // Whether the position is too old may be told only after the answer has begun: a watch goes on
        // when it brought something else, or nothing for a while.
        let proof = Duration::from_millis(limits::WATCH_PROOF_MS);
        loop {
            let batch = match resuming {
                true => match timeout(proof, batches.next()).await {
                    Ok(batch) => batch,
                    Err(_) => {
                        self.resumed(resuming).await?;
                        continue;
                    }
                },
                false => batches.next().await,
            };
            let Some(batch) = batch else { return Err(Broken::Over) };
            let (mut changes, mut end, mut seen) = (Vec::new(), None, None);
            for event in batch {
                match event {
                    Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                        seen = object.metadata.resource_version.clone().or(seen);
                        changes.extend(self.changed(served, object));
                    }
                    Ok(WatchEvent::Deleted(object)) => {
                        let metadata = object.metadata;
                        seen = metadata.resource_version.or(seen);
                        let name = metadata.name.unwrap_or_default();
                        let key = ObjectKey::new(metadata.namespace.as_deref(), &name);
                        changes.push(Change::Deleted(key));
                    }
                    Ok(WatchEvent::Bookmark(mark)) => seen = Some(mark.metadata.resource_version),
                    Ok(WatchEvent::Error(status)) => end = Some(kube::Error::Api(status)),
                    Err(error) => end = Some(error),
                }
                if end.is_some() {
                    break;
                }
            }
            if *resuming && seen.is_some() {
                self.resumed(resuming).await?;
            }
            if !changes.is_empty() {
                self.send(Event::Objects(changes)).await?;
            }
            if let Some(version) = seen {
                *at = version;
            }
            if let Some(error) = end {
                return Err(Broken::Api(error));
            }
        }
    }

    async fn resumed(&self, resuming: &mut bool) -> Result<(), End> {
        *resuming = false;
        self.send(Event::Resumed).await
    }

    /// `None` if the object is no object.
    fn changed(&self, served: &Served, object: DynamicObject) -> Option<Change> {
        let key = ObjectKey::new(
            object.metadata.namespace.as_deref(),
            object.metadata.name.as_deref().unwrap_or_default(),
        );
        if self.cache.has(self.kind, &key, &object.metadata, &served.api_version) {
            return Some(Change::Same(key));
        }
        let received = object::receive(self.kind, &served.api_version, object)?;
        Some(Change::Applied(Box::new(received.parse(&self.own_namespace))))
    }
}

/// Why a watch ended, before it is known where it was.
enum Broken {
    Over,
    Failed(String),
    Api(kube::Error),
    Stopped,
}

impl From<End> for Broken {
    fn from(_: End) -> Self {
        Self::Stopped // sending knows no other end
    }
}

fn end_of(error: &kube::Error, position: Position) -> End {
    let why = reason(error);
    let kube::Error::Api(status) = error else { return End::Failed(position, why) };
    match status.code {
        404 => match position {
            Position::Unlisted => End::Absent,
            Position::At(..) => End::Gone,
        },
        410 => End::Gone,
        401 | 403 => End::Refused(why),
        _ => End::Failed(position, why),
    }
}

/// What went wrong, in one line. No error of the API server or of its transport has a secret in it.
pub(super) fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} (HTTP {})", status.message, status.code),
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}

/// Pauses between attempts, which grow. Kinds differ a little, so that they do not all ask at once.
struct Retry {
    spread: u32,
    attempts: u32,
}

impl Retry {
    fn new(kind: WatchedKind) -> Self {
        Self { spread: kind as u32, attempts: 0 }
    }

    fn reset(&mut self) {
        self.attempts = 0;
    }

    fn next(&mut self) -> Duration {
        let pause = limits::RETRY_MS_MIN << self.attempts.min(8);
        self.attempts += 1;
        let pause = Duration::from_millis(pause.min(limits::RETRY_MS_MAX));
        pause * (100 - 2 * self.spread) / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_that_leaves_time_for_a_resync() {
        let mut retry = Retry::new(WatchedKind::Namespace);
        let pauses: Vec<_> = (0..40).map(|_| retry.next().as_millis()).collect();
        assert_eq!(pauses[..5], [250, 500, 1000, 2000, 2000]);
        assert_eq!(pauses[39], 2000);
        retry.reset();
        assert_eq!(retry.next().as_millis(), 250);
        let last = WatchedKind::ALL[WatchedKind::ALL.len() - 1];
        assert_eq!(Retry::new(last).next().as_millis(), 170);
    }
}
