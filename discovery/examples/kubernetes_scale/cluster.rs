//! What is in the API server beside the many Services: a Gateway, routes, and endpoints that answer.

use std::net::SocketAddr;

use anyhow::Result;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::gvk::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::{ENDPOINTS_PER_SERVICE, NAMESPACE};

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

pub(crate) struct Cluster {
    client: Client,
}

impl Cluster {
    pub(crate) fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    /// What exists once. May be there already.
    pub(crate) async fn prepare(&self, gateway_port: u16) -> Result<()> {
        self.apply("v1", "Namespace", "fedgate-system", json!({})).await?;
        let class = json!({"spec": {"controllerName": "fedgate.dev/gateway"}});
        self.apply(GATEWAY_API, "GatewayClass", "fedgate", class).await?;
        let listener = json!({"name": "http", "port": gateway_port, "protocol": "HTTP"});
        let gateway = json!({"spec": {"gatewayClassName": "fedgate", "listeners": [listener]}});
        self.apply(GATEWAY_API, "Gateway", "scale", gateway).await
    }

    /// A route to a Service, one of whose endpoints is an origin.
    pub(crate) async fn serve(&self, number: usize, origin: SocketAddr) -> Result<()> {
        let name = format!("svc-{number}");
        self.apply(GATEWAY_API, "HTTPRoute", &name, route(&name, &host(&name))).await?;
        let mut endpoints = json!([{ "addresses": [origin.ip()], "conditions": {"ready": true} }]);
        for index in 1..ENDPOINTS_PER_SERVICE {
            let address = format!("10.{}.{}.{index}", number / 250, number % 250);
            let endpoint = json!({ "addresses": [address], "conditions": {"ready": false} });
            endpoints.as_array_mut().into_iter().for_each(|list| list.push(endpoint.clone()));
        }
        let patch = json!([
            {"op": "replace", "path": "/endpoints", "value": endpoints},
            {"op": "replace", "path": "/ports/0/port", "value": origin.port()},
        ]);
        self.patch("EndpointSlice", &format!("{name}-a"), patch).await
    }

    /// Route and endpoints of a Service that is still to come.
    pub(crate) async fn await_service(&self, number: usize, origin: SocketAddr) -> Result<()> {
        let name = format!("late-{number}");
        self.apply(GATEWAY_API, "HTTPRoute", &name, route(&name, &host(&name))).await?;
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": origin.port()}],
            "endpoints": [{"addresses": [origin.ip()], "conditions": {"ready": true}}]
        });
        self.apply("discovery.k8s.io/v1", "EndpointSlice", &format!("{name}-a"), slice).await
    }

    pub(crate) async fn create_awaited(&self, number: usize) -> Result<()> {
        let service =
            json!({"spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}});
        self.apply("v1", "Service", &format!("late-{number}"), service).await
    }

    /// Gives a Service's endpoints another port.
    pub(crate) async fn point(&self, number: usize, port: u16) -> Result<()> {
        let patch = json!([{"op": "replace", "path": "/ports/0/port", "value": port}]);
        self.patch("EndpointSlice", &format!("svc-{number}-a"), patch).await
    }

    pub(crate) async fn rename_route(&self, number: usize, host: &str) -> Result<()> {
        let patch = json!([{"op": "replace", "path": "/spec/hostnames/0", "value": host}]);
        self.patch("HTTPRoute", &format!("svc-{number}"), patch).await
    }

    async fn patch(&self, kind: &str, name: &str, patch: Value) -> Result<()> {
        let version = if kind == "HTTPRoute" { GATEWAY_API } else { "discovery.k8s.io/v1" };
        let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
        self.api(version, kind).patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn apply(&self, version: &str, kind: &str, name: &str, mut object: Value) -> Result<()> {
        (object["apiVersion"], object["kind"]) = (json!(version), json!(kind));
        object["metadata"]["name"] = json!(name);
        let parameters = PatchParams::apply("kubernetes-scale").force();
        self.api(version, kind).patch(name, &parameters, &Patch::Apply(object)).await?;
        Ok(())
    }

    fn api(&self, version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match kind {
            "Namespace" | "GatewayClass" => Api::all_with(self.client.clone(), &resource),
            _ => Api::namespaced_with(self.client.clone(), NAMESPACE, &resource),
        }
    }
}

fn host(name: &str) -> String {
    format!("{name}.scale.test")
}

fn route(service: &str, host: &str) -> Value {
    json!({"spec": {
        "parentRefs": [{"name": "scale"}],
        "hostnames": [host],
        "rules": [{"backendRefs": [{"name": service, "port": 80}]}]
    }})
}
