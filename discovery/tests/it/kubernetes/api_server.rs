//! An API server in memory: lists in pages, watches from any version, forgets, falls silent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};

type Answer = UnsyncBoxBody<Bytes, io::Error>;

/// More events than a test makes before somebody reads them.
const LINES_MAX: usize = 10_000;

/// How it treats questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// Connections are refused, and open ones break.
    Down,
    /// Nothing is answered, and open watches stay open without a word, as of a stopped process.
    Silent,
    /// Lists are not answered.
    Slow,
}

#[derive(Debug, Clone)]
pub(super) struct ApiServer {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    mood: Mood,
    version: u64,
    resources: BTreeMap<String, Resources>,
    watches: Vec<Watch>,
    /// Paths and queries that were asked for.
    requests: Vec<String>,
}

#[derive(Debug, Default)]
struct Resources {
    objects: BTreeMap<String, Value>,
    log: Vec<(u64, String)>,
    /// Versions up to this one are too old to watch from.
    forgotten: u64,
    forbidden: bool,
}

#[derive(Debug)]
struct Watch {
    path: String,
    /// Older than an outage: the other end is dead, and nobody noticed.
    dead: bool,
    events: Sender<io::Result<Bytes>>,
}

impl ApiServer {
    /// One that serves these resources, `/api/v1/services` and the like, without any object.
    pub(super) fn new(paths: &[&str]) -> Self {
        let resources = paths.iter().map(|path| (path.to_string(), Resources::default()));
        let inner = Inner {
            mood: Mood::Well,
            version: 1,
            resources: resources.collect(),
            watches: Vec::new(),
            requests: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    pub(super) fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request| server.clone().answer(request));
        kube::Client::new(service, "default")
    }

    pub(super) fn set_mood(&self, mood: Mood) {
        let mut inner = self.lock();
        inner.mood = mood;
        match mood {
            Mood::Down => {
                for watch in inner.watches.drain(..) {
                    let broken = io::Error::from(io::ErrorKind::ConnectionReset);
                    let _ = watch.events.try_send(Err(broken)); // it may have gone by itself
                }
            }
            Mood::Silent => inner.watches.iter_mut().for_each(|watch| watch.dead = true),
            Mood::Well | Mood::Slow => {}
        }
    }

    /// Ends all open watches, as it does when their time is over.
    pub(super) fn end_watches(&self) {
        self.lock().watches.clear();
    }

    /// Forgets the history: whoever watches from an old version is told 410.
    pub(super) fn compact(&self) {
        let mut inner = self.lock();
        let version = inner.version;
        for resources in inner.resources.values_mut() {
            resources.forgotten = version;
            resources.log.clear();
        }
    }

    pub(super) fn install(&self, path: &str) {
        self.lock().resources.insert(path.into(), Resources::default());
    }

    /// As when a definition goes, or loses a version.
    pub(super) fn uninstall(&self, path: &str) {
        let mut inner = self.lock();
        inner.resources.remove(path);
        inner.watches.retain(|watch| watch.path != path);
    }

    /// How often anything was asked for at this path.
    pub(super) fn asked(&self, path: &str) -> usize {
        let inner = self.lock();
        inner.requests.iter().filter(|asked| asked.split('?').next() == Some(path)).count()
    }

    pub(super) fn forbid(&self, path: &str, forbidden: bool) {
        self.lock().resources.get_mut(path).unwrap().forbidden = forbidden;
    }

    /// Creates or replaces an object.
    pub(super) fn put(&self, path: &str, mut object: Value) {
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        object["metadata"]["uid"] = json!(format!("uid-{}", name_of(&object)));
        let known = inner.resources[path].objects.contains_key(&name_of(&object));
        inner.record(path, if known { "MODIFIED" } else { "ADDED" }, object);
    }

    pub(super) fn delete(&self, path: &str, name: &str) {
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version;
        let mut object = inner.resources[path].objects[name].clone();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        inner.record(path, "DELETED", object);
    }

    /// How many lists of a resource were asked for, pages of one list together.
    pub(super) fn lists(&self, path: &str) -> usize {
        let inner = self.lock();
        let asked = inner.requests.iter().filter(|asked| asked.starts_with(&format!("{path}?")));
        asked.filter(|asked| !asked.contains("watch=true") && !asked.contains("continue=")).count()
    }

    /// How many watches of a resource are open now.
    pub(super) fn open_watches(&self, path: &str) -> usize {
        let inner = self.lock();
        let open = inner.watches.iter().filter(|watch| watch.path == path && !watch.dead);
        open.filter(|watch| !watch.events.is_closed()).count()
    }

    async fn answer(self, request: Request<Body>) -> io::Result<Response<Answer>> {
        let path = request.uri().path().to_string();
        let query = request.uri().query().unwrap_or_default().to_string();
        let mood = {
            let mut inner = self.lock();
            inner.requests.push(format!("{path}?{query}"));
            inner.mood
        };
        let watch = query.contains("watch=true");
        match mood {
            Mood::Down => return Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
            Mood::Silent => return std::future::pending().await,
            Mood::Slow if !watch && path != "/readyz" => return std::future::pending().await,
            Mood::Well | Mood::Slow => {}
        }
        let mut inner = self.lock();
        if path == "/readyz" {
            return Ok(Response::new(full("ok".into())));
        }
        if let Some(document) = inner.discovery(&path) {
            return Ok(Response::new(full(document.to_string())));
        }
        let Some(resources) = inner.resources.get(&path) else {
            if watch {
                let mut response = Response::new(full("404 page not found\n".into()));
                *response.status_mut() = StatusCode::NOT_FOUND;
                return Ok(response);
            }
            return Ok(refusal(StatusCode::NOT_FOUND, "the server could not find it"));
        };
        if resources.forbidden {
            return Ok(refusal(StatusCode::FORBIDDEN, "forbidden: User cannot list"));
        }
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        };
        if watch {
            let from = parameter("resourceVersion").unwrap().parse().unwrap();
            return Ok(Response::new(inner.watch(&path, from)));
        }
        let limit = parameter("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        let offset = parameter("continue").map_or(0, |token| token.parse().unwrap());
        Ok(Response::new(full(inner.list(&path, offset, limit).to_string())))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl Inner {
    fn record(&mut self, path: &str, verb: &str, object: Value) {
        let resources = self.resources.get_mut(path).unwrap();
        match verb {
            "DELETED" => resources.objects.remove(&name_of(&object)),
            _ => resources.objects.insert(name_of(&object), object.clone()),
        };
        let line = format!("{}\n", json!({"type": verb, "object": object}));
        resources.log.push((self.version, line.clone()));
        for watch in self.watches.iter().filter(|watch| watch.path == path && !watch.dead) {
            let _ = watch.events.try_send(Ok(line.clone().into())); // it may have gone
        }
    }

    /// `/apis/GROUP/VERSION`, if anything of it is served.
    fn discovery(&self, path: &str) -> Option<Value> {
        let plurals =
            self.resources.keys().filter_map(|known| known.strip_prefix(path)?.strip_prefix('/'));
        let resource = |name: &str| {
            json!({
                "name": name, "singularName": "", "kind": "X", "namespaced": true, "verbs": []
            })
        };
        let resources: Vec<Value> = plurals.map(resource).collect();
        let of_group = path.starts_with("/apis/") && !resources.is_empty();
        of_group.then(|| {
            json!({
                "apiVersion": "v1", "kind": "APIResourceList",
                "groupVersion": path.trim_start_matches("/apis/"), "resources": resources
            })
        })
    }

    fn list(&self, path: &str, offset: usize, limit: usize) -> Value {
        let objects = &self.resources[path].objects;
        let items: Vec<&Value> = objects.values().skip(offset).take(limit).collect();
        let end = offset + items.len();
        let next = if end < objects.len() { end.to_string() } else { String::new() };
        json!({
            "apiVersion": "v1", "kind": "List", "items": items,
            "metadata": {"resourceVersion": self.version.to_string(), "continue": next}
        })
    }

    fn watch(&mut self, path: &str, from: u64) -> Answer {
        let resources = &self.resources[path];
        let (sender, receiver) = channel(LINES_MAX);
        if from < resources.forgotten {
            let status = status(StatusCode::GONE, "too old resource version");
            let line = format!("{}\n", json!({"type": "ERROR", "object": status}));
            sender.try_send(Ok(line.into())).unwrap();
            return streamed(receiver);
        }
        for (_, line) in resources.log.iter().filter(|(version, _)| *version > from) {
            sender.try_send(Ok(line.clone().into())).unwrap();
        }
        self.watches.push(Watch { path: path.into(), dead: false, events: sender });
        streamed(receiver)
    }
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_string()
}

fn streamed(receiver: Receiver<io::Result<Bytes>>) -> Answer {
    let frames = stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?.map(Frame::data), receiver))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn full(text: String) -> Answer {
    Full::from(text).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn refusal(code: StatusCode, message: &str) -> Response<Answer> {
    let mut response = Response::new(full(status(code, message).to_string()));
    *response.status_mut() = code;
    response
}

fn status(code: StatusCode, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "reason": code.canonical_reason(), "message": message, "code": code.as_u16()
    })
}
