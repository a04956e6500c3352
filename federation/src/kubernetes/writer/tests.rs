//! The loop against a small API server that knows lists, objects, server-side apply and deletion.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use model::ObjectName;
use serde_json::{Map, json};

use super::*;
use crate::kubernetes::drift::Seen;
use crate::kubernetes::kinds::CONFIG_MAP;

/// By path.
#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    calls: Vec<String>,
    /// The last `resourceVersion`.
    version: u64,
    /// Whether watches tell of the objects.
    is_watched: bool,
    /// What every write is answered with.
    refusal: Option<StatusCode>,
}

type Shared = Arc<Mutex<Server>>;

const FOLDER: &str = "/api/v1/namespaces/ns/configmaps";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/release";

fn client(server: &Shared) -> Client {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
            let (status, answer) = server.answer(&parts.method, parts.uri.path(), body);
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, Infallible>(Response::builder().status(status).body(answer).unwrap())
        }
    });
    Client::new(service, "ns")
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.calls.push(format!("{method} {path}"));
        let refused = |status: StatusCode| {
            let (code, reason) = (status.as_u16(), status.canonical_reason().unwrap_or_default());
            let reason = reason.replace(' ', "");
            (status, json!({ "kind": "Status", "code": code, "message": "no", "reason": reason }))
        };
        if let Some(refusal) = self.refusal.filter(|_| *method != Method::GET) {
            return refused(refusal);
        }
        match *method {
            Method::GET if path == FOLDER => {
                let ours = |object: &&Value| {
                    object["metadata"]["labels"].get("fedgate.dev/writer") == Some(&json!("test"))
                };
                let items: Vec<_> = self.objects.values().filter(ours).cloned().collect();
                (
                    StatusCode::OK,
                    json!({ "kind": "ConfigMapList", "apiVersion": "v1", "metadata": {}, "items": items }),
                )
            }
            Method::GET => match self.objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => refused(StatusCode::NOT_FOUND),
            },
            Method::PATCH => {
                let mut object = body;
                object["metadata"]["uid"] = json!("u");
                self.version += 1;
                object["metadata"]["resourceVersion"] = json!(self.version.to_string());
                self.objects.insert(path.to_string(), object.clone());
                (StatusCode::OK, object)
            }
            _ => match self.objects.remove(path) {
                Some(object) => (StatusCode::OK, object),
                None => refused(StatusCode::NOT_FOUND),
            },
        }
    }

    fn look(&self, target: &Target) -> Seen {
        if !self.is_watched {
            return Seen::Nothing;
        }
        let there = self.objects.get(&format!("{FOLDER}/{}", target.name));
        let version =
            |object: &Value| object["metadata"]["resourceVersion"].as_str().map(Into::into);
        there.map_or(Seen::Gone, |object| Seen::At(version(object).unwrap_or_default()))
    }
}

/// Wants ConfigMaps of these names.
struct Names(watch::Receiver<Option<Vec<&'static str>>>);

impl Writer for Names {
    const NAME: &'static str = "test";

    fn owned(&self) -> Vec<Owned> {
        vec![Owned { kind: &CONFIG_MAP, namespace: Some("ns".into()) }]
    }

    fn desired(&mut self, _: &Observed, _: Timestamp) -> Option<Vec<Write>> {
        let names = self.0.borrow_and_update().clone()?;
        let write = |name: &&str| {
            Write::whole(&CONFIG_MAP, Some("ns"), name, json!({ "data": { "k": name } }))
        };
        Some(names.iter().map(write).collect())
    }

    async fn changed(&mut self) {
        changed(&mut self.0).await;
    }
}

struct Site {
    server: Shared,
    names: watch::Sender<Option<Vec<&'static str>>>,
    leads: watch::Sender<bool>,
    health: Arc<Health>,
    stop: CancellationToken,
}

impl Site {
    fn start(objects: &[(&str, Value)]) -> Self {
        Self::start_owned(objects, None)
    }

    fn start_owned(objects: &[(&str, Value)], owner: Option<&str>) -> Self {
        let path = |name: &str| format!("{FOLDER}/{name}");
        let objects = objects.iter().map(|(name, object)| (path(name), object.clone())).collect();
        let server = Arc::new(Mutex::new(Server { objects, ..Server::default() }));
        let (names, wanted) = watch::channel(None);
        let (leads, leader) = watch::channel(false);
        let (health, stop) = (Arc::new(Health::default()), CancellationToken::new());
        let owner = owner.map(|name| ObjectName::parse(name).unwrap());
        let owner = Owner::new(client(&server), owner);
        let client = client(&server);
        let look = {
            let server = server.clone();
            Arc::new(move |target: &Target| {
                server.lock().unwrap_or_else(PoisonError::into_inner).look(target)
            })
        };
        let pen = Pen { client, owner, health: health.clone(), leader, stop: stop.clone(), look };
        tokio::spawn(run(Names(wanted), pen));
        Self { server, names, leads, health, stop }
    }

    fn with<T>(&self, read: impl FnOnce(&mut Server) -> T) -> T {
        read(&mut self.server.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn there(&self) -> Vec<String> {
        let name = |path: &String| path.rsplit('/').next().unwrap().to_string();
        self.with(|server| server.objects.keys().map(name).collect())
    }

    /// Time is paused: it passes when nothing else is to be done.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {what}; calls {:?}", self.with(|server| server.calls.clone()));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn object(name: &str, labels: Map<String, Value>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {},
        "metadata": { "name": name, "namespace": "ns", "uid": "u", "labels": labels },
    })
}

fn ours(name: &str) -> Value {
    let labels = json!({ "app.kubernetes.io/managed-by": "fedgate", "fedgate.dev/writer": "test" });
    object(name, labels.as_object().unwrap().clone())
}

#[tokio::test(start_paused = true)]
async fn only_the_holder_of_the_lease_writes_and_only_once_it_knows_what() {
    let site = Site::start(&[("orphan", ours("orphan")), ("users", object("users", Map::new()))]);
    site.names.send_replace(Some(vec!["a"]));
    tokio::time::sleep(KUBERNETES_RETRY_MAX).await;
    assert_eq!(site.with(|server| server.calls.len()), 0, "another node writes");
    site.names.send_replace(None);
    site.leads.send_replace(true);
    site.until("it looks", |site| site.with(|server| !server.calls.is_empty())).await;
    assert_eq!(site.there(), ["orphan", "users"], "it does not know yet what is wanted");
    site.names.send_replace(Some(vec!["a", "b"]));
    site.until("it writes", |site| site.there() == ["a", "b", "users"]).await;
    site.names.send_replace(Some(vec!["b"]));
    site.until("it deletes", |site| site.there() == ["b", "users"]).await;
    site.leads.send_replace(false);
    site.names.send_replace(Some(vec![]));
    tokio::time::sleep(KUBERNETES_RETRY_MAX).await;
    assert_eq!(site.there(), ["b", "users"]);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_changed_is_put_back_and_rest_is_rest() {
    let site = Site::start(&[]);
    site.leads.send_replace(true);
    site.names.send_replace(Some(vec!["a"]));
    let path = format!("{FOLDER}/a");
    let is_right = |site: &Site| {
        site.with(|server| server.objects.get(&path).is_some_and(|a| a["data"]["k"] == "a"))
    };
    site.until("it writes", is_right).await;
    site.with(|server| server.objects.get_mut(&path).unwrap()["data"]["k"] = json!("evil"));
    site.until("it mends", is_right).await;
    site.with(|server| server.calls.clear());
    tokio::time::sleep(KUBERNETES_RESYNC_INTERVAL * 3).await;
    let calls = site.with(|server| server.calls.clone());
    assert!(calls.len() <= 4 && calls.iter().all(|call| call.starts_with("GET")), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn what_watches_tell_of_is_mended_long_before_the_next_list() {
    let site = Site::start(&[]);
    site.with(|server| server.is_watched = true);
    site.leads.send_replace(true);
    site.names.send_replace(Some(vec!["a"]));
    let path = format!("{FOLDER}/a");
    let is_there = |site: &Site| site.there() == ["a"];
    site.until("it writes", is_there).await;
    let list = format!("GET {FOLDER}");
    let lists =
        |site: &Site| site.with(|server| server.calls.iter().filter(|call| **call == list).count());
    let before = lists(&site);
    tokio::time::sleep(KUBERNETES_DRIFT_INTERVAL * 4).await;
    assert_eq!(lists(&site), before, "nothing has changed");
    let gone = Instant::now();
    site.with(|server| server.objects.remove(&path));
    site.until("it is back", is_there).await;
    let back = gone.elapsed();
    assert!(back < KUBERNETES_DRIFT_INTERVAL * 2, "{back:?}");
    site.with(|server| {
        let object = server.objects.get_mut(&path).unwrap();
        (object["data"]["k"], object["metadata"]["resourceVersion"]) = (json!("evil"), json!("x"));
    });
    let is_right = |site: &Site| site.with(|server| server.objects[&path]["data"]["k"] == "a");
    let changed = Instant::now();
    site.until("it is right", is_right).await;
    assert!(changed.elapsed() < KUBERNETES_DRIFT_INTERVAL * 2, "{:?}", changed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_elses_is_left_alone_and_said() {
    let site = Site::start(&[("a", object("a", Map::new()))]);
    site.leads.send_replace(true);
    site.names.send_replace(Some(vec!["a"]));
    let codes = |site: &Site| -> Vec<String> {
        site.health.diagnostics(Instant::now()).iter().map(|d| d.code.to_string()).collect()
    };
    site.until("it is said", |site| codes(site) == ["FED1117"]).await;
    assert_eq!(
        site.with(|server| server.objects[&format!("{FOLDER}/a")]["data"].clone()),
        json!({})
    );
    site.with(|server| server.objects.clear());
    site.until("it is made once the name is free", |site| site.there() == ["a"]).await;
    site.until("and that is the end of it", |site| codes(site).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_is_tried_again_ever_more_seldom() {
    let site = Site::start(&[]);
    site.with(|server| server.refusal = Some(StatusCode::FORBIDDEN));
    site.leads.send_replace(true);
    site.names.send_replace(Some(vec!["a"]));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let writes =
        |server: &mut Server| server.calls.iter().filter(|c| c.starts_with("PATCH")).count();
    let tries = site.with(writes);
    assert!((8..=24).contains(&tries), "{tries} tries in ten minutes");
    let found = site.health.diagnostics(Instant::now());
    assert_eq!(found[0].code.to_string(), "FED1103", "{found:?}");
    site.with(|server| server.refusal = None);
    site.until("it works again", |site| site.there() == ["a"]).await;
}

fn role(uid: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": "release", "uid": uid },
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_made_is_owned_by_the_release_of_now_and_by_no_other() {
    let site = Site::start_owned(&[("old", ours("old"))], Some("release"));
    site.leads.send_replace(true);
    site.names.send_replace(Some(vec!["new", "old"]));
    let found = |site: &Site| site.health.diagnostics(Instant::now());
    site.until("it is said that there is no owner", |site| !found(site).is_empty()).await;
    assert!(found(&site)[0].message.contains("ClusterRole/release"), "{:?}", found(&site));
    assert_eq!(site.there(), ["old"], "nothing is written without one");
    for uid in ["first", "second"] {
        site.with(|server| server.objects.insert(ROLE.into(), role(uid)));
        let owners = json!([{
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "name": "release", "uid": uid,
        }]);
        let is_owned = |site: &Site, name: &str| {
            site.with(|server| {
                let object = server.objects.get(&format!("{FOLDER}/{name}"));
                object.is_some_and(|object| object["metadata"]["ownerReferences"] == owners)
            })
        };
        site.until("both are its own", |site| is_owned(site, "new") && is_owned(site, "old")).await;
    }
    site.until("all is well", |site| found(site).is_empty()).await;
    let mut going = role("second");
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    site.with(|server| server.objects.insert(ROLE.into(), going));
    site.until("one that goes is none", |site| !found(site).is_empty()).await;
}
