//! What a golden file says is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::kubernetes::{MANAGED_BY, MANAGED_BY_LABEL};
use discovery::Catalog;
use jiff::{SignedDuration, Timestamp};
use model::code::Code;
use model::{
    AppProtocol, ClusterId, ClusterName, Diagnostic, Revision, ServiceImport, ServiceName,
    ServicePort, Severity,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::names::derived;
use super::super::sources::gateways;
use super::super::world::{Member, World, name_of};
use super::super::{
    EXPORT_V1ALPHA1, EXPORT_V1BETA1, IMPORT_V1ALPHA1, IMPORT_V1BETA1, McsKinds, Pool,
};
use crate::fleet::Exporter;
use crate::kubernetes::apply::{Observed, Step, Target};
use crate::kubernetes::kinds::{ENDPOINT_SLICE, Kind, SERVICE};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Input {
    import_ports: Ports,
    pub(super) now: Timestamp,
    /// Between two rounds.
    #[serde(default)]
    pub(super) pause: SignedDuration,
    pub(super) rounds: Option<usize>,
    /// The newest version of the MCS kinds that the API server has; the default is v1beta1, `none`
    /// that it has none.
    mcs: Option<String>,
    /// Absent: this cluster is in none.
    federation: Option<Federation>,
    /// What the API server has.
    objects: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct Ports {
    first: u16,
    count: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Federation {
    #[serde(default)]
    imports: Vec<Import>,
    /// `shop/api` with ports 80 named http, so many times.
    #[serde(default)]
    exports: Vec<Export>,
    #[serde(default)]
    findings: Vec<Found>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Import {
    service: String,
    /// `80 http http` is number, name, protocol; `-` is no name.
    ports: Vec<String>,
    clusters: Vec<String>,
}

/// One of this cluster's that the store acknowledged.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    service: String,
    serving: Vec<Serving>,
    idle: Option<Found>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Serving {
    cluster: String,
    ports: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Found {
    #[serde(default)]
    object: String,
    code: String,
    #[serde(default)]
    warning: bool,
    message: String,
    fix: String,
}

impl Input {
    pub(super) fn parse(name: &str, text: &str) -> Self {
        let mut input: Self =
            serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
        input.objects.iter_mut().for_each(complete);
        input
    }

    pub(super) fn pool(&self) -> Pool {
        Pool { first: self.import_ports.first, count: self.import_ports.count }
    }

    fn kinds(&self) -> McsKinds {
        match self.mcs.as_deref() {
            None => McsKinds { export: Some(&EXPORT_V1BETA1), import: Some(&IMPORT_V1BETA1) },
            Some("v1alpha1") => {
                McsKinds { export: Some(&EXPORT_V1ALPHA1), import: Some(&IMPORT_V1ALPHA1) }
            }
            Some(_) => McsKinds::default(),
        }
    }

    pub(super) fn imports(&self) -> Vec<ServiceImport> {
        let imports = self.federation.iter().flat_map(|federation| &federation.imports);
        let import = |import: &Import| ServiceImport {
            name: ServiceName::parse(&import.service).unwrap(),
            ports: ports(&import.ports),
            clusters: import
                .clusters
                .iter()
                .map(|name| ClusterName::parse(name).unwrap())
                .collect(),
        };
        imports.map(import).collect()
    }

    /// As `sources` makes it of the cache.
    pub(super) fn world(&self) -> World {
        let imports = self.imports();
        let users = |kind| self.of(kind).filter(|object| !is_ours(object));
        let names = |kind| users(kind).filter_map(name_of).collect::<BTreeSet<_>>();
        let services = names("Service");
        let derived = imports.iter().map(|import| derived(&import.name));
        let pods: Vec<_> =
            self.of("Pod").map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect();
        let alive = |object: &&Value| object["metadata"]["deletionTimestamp"].is_null();
        let namespaces = self.of("Namespace").filter(alive);
        let by_name = |objects: Vec<&Value>| {
            let named = objects.into_iter().map(|it| (name_of(it).unwrap(), Arc::new(it.clone())));
            Arc::new(named.collect::<BTreeMap<_, _>>())
        };
        World {
            own: ClusterName::parse("east").unwrap(),
            pool: self.pool(),
            kinds: self.kinds(),
            namespaces: namespaces
                .map(|it| it["metadata"]["name"].as_str().unwrap().to_string())
                .collect(),
            gateways: gateways(&pods),
            member: self.federation.as_ref().map(|federation| Arc::new(federation.member())),
            foreign_imports: names("ServiceImport"),
            foreign_services: derived.filter(|name| services.contains(name)).collect(),
            imports,
            import_objects: by_name(self.of("ServiceImport").filter(|it| is_ours(it)).collect()),
            exports: by_name(users("ServiceExport").collect()),
            services,
            catalog: Arc::new(self.catalog()),
            publishing: self
                .federation
                .iter()
                .flat_map(|it| &it.findings)
                .map(Found::read)
                .collect(),
        }
    }

    fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        for object in self.objects.iter().filter(|object| !is_ours(object)) {
            if !["Service", "ServiceExport"].contains(&object["kind"].as_str().unwrap()) {
                continue;
            }
            let manifest = api::parse_object("cluster", object);
            catalog.diagnostics.extend(manifest.diagnostics);
            manifest.objects.into_iter().for_each(|it| catalog.resources.upsert(it.resource));
        }
        catalog
    }

    pub(super) fn own(&self) -> Observed {
        let mut own = Observed::default();
        for object in self.objects.iter().filter(|object| is_ours(object)) {
            let Some(kind) = self.kind(object) else { continue };
            let name = name_of(object).unwrap();
            let (namespace, name) = (Some(name.namespace.to_string()), name.name.to_string());
            own.objects.insert(Target { kind, namespace, name, status: false }, object.clone());
        }
        own
    }

    fn kind(&self, object: &Value) -> Option<&'static Kind> {
        match object["kind"].as_str()? {
            "Service" => Some(&SERVICE),
            "EndpointSlice" => Some(&ENDPOINT_SLICE),
            "ServiceImport" => self.kinds().import,
            _ => None,
        }
    }

    fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// What the API server makes of a call.
    pub(super) fn carry_out(&mut self, step: Step) {
        let (kind, id) = match &step {
            Step::Apply { target, .. } | Step::Delete { target, .. } => {
                let namespace = target.namespace.clone().unwrap_or_default();
                (target.kind.kind, (namespace, target.name.clone()))
            }
        };
        let is_it = |object: &Value| {
            let metadata = &object["metadata"];
            object["kind"] == kind && metadata["namespace"] == *id.0 && metadata["name"] == *id.1
        };
        let place = self.objects.iter().position(is_it);
        match (step, place) {
            (Step::Delete { .. }, Some(place)) => {
                self.objects.remove(place);
            }
            (Step::Delete { .. }, None) => {}
            (Step::Apply { document, target, .. }, Some(place)) if target.status => {
                let status = &mut self.objects[place]["status"];
                for (field, value) in document["status"].as_object().unwrap() {
                    status[field] = value.clone();
                }
            }
            (Step::Apply { document, .. }, Some(place)) => {
                let before = std::mem::replace(&mut self.objects[place], document);
                let now = &mut self.objects[place];
                now["status"] = before["status"].clone();
                for field in ["clusterIPs", "ipFamilies"] {
                    if kind == "Service" {
                        now["spec"][field] = before["spec"][field].clone();
                    }
                }
                complete(&mut self.objects[place]);
            }
            (Step::Apply { mut document, .. }, None) => {
                complete(&mut document);
                self.objects.push(document);
            }
        }
    }
}

impl Federation {
    fn member(&self) -> Member {
        let mut member = Member::default();
        for export in &self.exports {
            let name = ServiceName::parse(&export.service).unwrap();
            let exporter = |serving: &Serving| Exporter {
                cluster: ClusterId::from_bytes([1; 16]),
                name: ClusterName::parse(&serving.cluster).unwrap(),
                since: Revision::default(),
                ports: ports(&serving.ports),
            };
            member.acknowledged.insert(name.clone());
            member.exporters.insert(name.clone(), export.serving.iter().map(exporter).collect());
            if let Some(idle) = &export.idle {
                member.idle.insert(name, idle.read());
            }
        }
        member
    }
}

impl Found {
    fn read(&self) -> Diagnostic {
        Diagnostic {
            severity: if self.warning { Severity::Warning } else { Severity::Error },
            code: Code::parse(&self.code).unwrap(),
            object: self.object.clone(),
            field: String::new(),
            message: self.message.clone(),
            fix: self.fix.clone(),
        }
    }
}

/// What the API server adds.
fn complete(object: &mut Value) {
    if object["kind"] == "Service" && object["spec"]["clusterIPs"].is_null() {
        object["spec"]["clusterIPs"] = json!(["10.96.0.10"]);
        object["spec"]["ipFamilies"] = json!(["IPv4"]);
    }
    if object["metadata"]["generation"].is_null() && object["kind"] != "Service" {
        object["metadata"]["generation"] = 1.into();
    }
}

fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"][MANAGED_BY_LABEL] == MANAGED_BY
}

fn ports(texts: &[String]) -> Vec<ServicePort> {
    let port = |text: &String| {
        let [number, name, protocol] = text.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{text:?} is not a port")
        };
        let protocol = match protocol {
            "http" => AppProtocol::Http,
            "h2c" => AppProtocol::H2c,
            _ => AppProtocol::Tcp,
        };
        let name = (name != "-").then(|| name.to_string());
        ServicePort { name, port: number.parse().unwrap(), protocol }
    };
    texts.iter().map(port).collect()
}
