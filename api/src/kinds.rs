//! The kinds that are served, one module each: the serde types of the served fields, what happens to
//! the others, and the translation into `model`.

pub(crate) mod access_policy;
pub(crate) mod cluster_peer;
pub(crate) mod endpoint_slice;
pub(crate) mod gateway;
pub(crate) mod http_route;
pub(crate) mod ports;
pub(crate) mod route;
pub(crate) mod service;
pub(crate) mod service_export;
pub(crate) mod service_import;
pub(crate) mod tcp_route;

use model::Resource;

use crate::metadata::Identity;
use crate::report::{FieldRules, Report};

/// How a kind is read.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) kind: &'static str,
    pub(crate) api_versions: &'static [&'static str],
    pub(crate) namespaced: bool,
    /// What [`Report::refuse`] may leave out alone.
    pub(crate) parts: &'static [&'static str],
    /// What happens to the fields that the serde type does not have.
    #[cfg_attr(not(test), expect(dead_code, reason = "each module reads its own; tests list all"))]
    pub(crate) rules: FieldRules,
    pub(crate) read: fn(&Identity, &mut Report<'_>) -> Reading,
}

/// What became of an object.
#[derive(Debug)]
pub(crate) enum Reading {
    /// In service, unless the report says that it failed.
    Served(Box<Resource>),
    /// Another implementation's: nothing is said of it.
    NotOurs,
    /// The report says why.
    Invalid,
}

impl Reading {
    pub(crate) fn of(resource: Option<Resource>) -> Self {
        resource.map_or(Self::Invalid, |resource| Self::Served(Box::new(resource)))
    }
}

pub(crate) const ALL: &[Kind] = &[
    service::KIND,
    endpoint_slice::KIND,
    service_export::KIND,
    service_import::KIND,
    gateway::KIND,
    http_route::KIND,
    tcp_route::KIND,
    access_policy::KIND,
    cluster_peer::KIND,
];

pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
pub(crate) const MCS_GROUP: &str = "multicluster.x-k8s.io";
pub(crate) const MCS_VERSIONS: &[&str] =
    &["multicluster.x-k8s.io/v1beta1", "multicluster.x-k8s.io/v1alpha1"];
pub(crate) const OWN_VERSIONS: &[&str] = &["fedgate.dev/v1alpha1"];
