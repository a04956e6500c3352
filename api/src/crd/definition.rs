//! What stands around the schemas: names, columns, rules about the whole object.

use schemars::JsonSchema;
use serde_json::{Value, json};

use super::structural::schema_of;
use crate::kinds::status::{PolicyStatus, Status};
use crate::kinds::{access_policy, cluster_peer, federation, join_grant, namespace_grant};
use crate::kubernetes::{OWN_GROUP, OWN_VERSION};

/// One kind.
pub(super) struct Definition {
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    scope: &'static str,
    description: &'static str,
    spec_required: bool,
    columns: &'static [Column],
    /// CEL on the whole object, and what is said when it does not hold.
    rules: &'static [(&'static str, &'static str)],
    schemas: fn() -> (Value, Value),
}

/// A column of `kubectl get`.
enum Column {
    Text(&'static str, &'static str),
    Number(&'static str, &'static str),
    /// The status of a condition of the object.
    Condition(&'static str),
    /// The reason of a condition of the object.
    Reason(&'static str),
    /// The status of a condition at a policy's first target.
    AtTarget(&'static str),
    /// With `-o wide` only.
    Wide(&'static str, &'static str),
}

pub(super) const ALL: &[Definition] = &[
    Definition {
        kind: "Federation",
        plural: "federations",
        short_names: &[],
        scope: "Cluster",
        description: "Federation says whether this cluster founds a federation, and shows how the one \
                      that it is in fares. There is one, named \"default\".",
        spec_required: false,
        columns: &[
            Column::Text("Id", ".status.id"),
            Column::Number("Clusters", ".status.clusters"),
            Column::Text("Leader", ".status.leader"),
            Column::Condition("Ready"),
            Column::Wide("Name", ".spec.name"),
        ],
        rules: &[(
            "self.metadata.name == 'default'",
            "a cluster is in one federation at a time: name the object \"default\"",
        )],
        schemas: schemas::<federation::Spec, federation::Status>,
    },
    Definition {
        kind: "ClusterPeer",
        plural: "clusterpeers",
        short_names: &["fcp"],
        scope: "Cluster",
        description: "ClusterPeer introduces another cluster: where its gateways are and whom they may \
                      speak for. It is named as that cluster calls itself.",
        spec_required: true,
        columns: &[
            Column::Condition("Ready"),
            Column::Reason("Ready"),
            Column::Wide("Host", ".spec.addresses[0].host"),
            Column::Wide("Trust-Domain", ".spec.trustDomains[0].name"),
        ],
        rules: &[(
            "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
            "name it as the cluster calls itself: a label of at most 63 characters, without dots",
        )],
        schemas: schemas::<cluster_peer::Spec, Status>,
    },
    Definition {
        kind: "JoinGrant",
        plural: "joingrants",
        short_names: &["jg"],
        scope: "Cluster",
        description: "JoinGrant lets one new cluster into the federation: Fedgate makes a token that can \
                      be used once, and writes it into a Secret.",
        spec_required: true,
        columns: &[
            Column::Text("Cluster", ".spec.cluster"),
            Column::Text("State", ".status.state"),
            Column::Text("Expires-At", ".status.expiresAt"),
            Column::Wide("Secret", ".spec.secretRef.name"),
            Column::Wide("Token", ".status.tokenId"),
        ],
        rules: &[],
        schemas: schemas::<join_grant::Spec, join_grant::Status>,
    },
    Definition {
        kind: "NamespaceGrant",
        plural: "namespacegrants",
        short_names: &["nsg"],
        scope: "Cluster",
        description: "NamespaceGrant says which clusters of the federation may export services in which \
                      namespaces.",
        spec_required: true,
        columns: &[Column::Condition("Accepted"), Column::Condition("Ready")],
        rules: &[],
        schemas: schemas::<namespace_grant::Spec, Status>,
    },
    Definition {
        kind: "AccessPolicy",
        plural: "accesspolicies",
        short_names: &["ap"],
        scope: "Namespaced",
        description: "AccessPolicy says who in other clusters may reach ServiceExports of its namespace. \
                      Without one nobody may.",
        spec_required: true,
        columns: &[Column::AtTarget("Accepted"), Column::AtTarget("Programmed")],
        rules: &[],
        schemas: schemas::<access_policy::Spec, PolicyStatus>,
    },
];

fn schemas<Spec: JsonSchema, Status: JsonSchema>() -> (Value, Value) {
    (schema_of::<Spec>(), schema_of::<Status>())
}

impl Definition {
    pub(super) fn render(&self) -> Value {
        let columns = self.columns.iter().map(Column::render).chain([json!({
            "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"
        })]);
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{}.{OWN_GROUP}", self.plural),
                "labels": {"app.kubernetes.io/part-of": "fedgate"},
            },
            "spec": {
                "group": OWN_GROUP,
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.kind.to_lowercase(),
                    "shortNames": self.short_names,
                    "categories": ["fed"],
                },
                "scope": self.scope,
                "versions": [{
                    "name": OWN_VERSION,
                    "served": true,
                    "storage": true,
                    "schema": {"openAPIV3Schema": self.schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns.collect::<Vec<_>>(),
                }],
            },
        })
    }

    fn schema(&self) -> Value {
        let (spec, status) = (self.schemas)();
        let mut schema = json!({
            "description": self.description,
            "type": "object",
            "properties": {
                "apiVersion": {
                    "description": format!("The version of the kind: \"{OWN_GROUP}/{OWN_VERSION}\"."),
                    "type": "string",
                },
                "kind": {"description": format!("The kind: \"{}\".", self.kind), "type": "string"},
                "metadata": {"type": "object"}, // more is forbidden here
                "spec": spec,
                "status": status,
            },
        });
        if self.spec_required {
            schema["required"] = json!(["spec"]);
        }
        if !self.rules.is_empty() {
            let rule = |(rule, message): &(&str, &str)| json!({"rule": rule, "message": message});
            let rules = self.rules.iter().map(rule).collect();
            schema["x-kubernetes-validations"] = Value::Array(rules);
        }
        schema
    }
}

impl Column {
    fn render(&self) -> Value {
        let of = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
        let condition =
            |name: &str, field: &str| format!(".status.conditions[?(@.type==\"{name}\")].{field}");
        match self {
            Self::Text(name, path) => of(name, "string", path),
            Self::Number(name, path) => of(name, "integer", path),
            Self::Condition(name) => of(name, "string", &condition(name, "status")),
            Self::Reason(name) => of("Reason", "string", &condition(name, "reason")),
            Self::AtTarget(name) => {
                let path = format!(".status.ancestors[0].conditions[?(@.type==\"{name}\")].status");
                of(name, "string", &path)
            }
            Self::Wide(name, path) => {
                let mut column = of(name, "string", path);
                column["priority"] = json!(1);
                column
            }
        }
    }
}
