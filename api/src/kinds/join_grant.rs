//! `fedgate.dev/v1alpha1 JoinGrant`: a token for one new cluster, written into a Secret. Only a node that
//! watches Kubernetes acts on it.
//!
//! It is in no namespace: whoever may create one lets a cluster into the federation, so it is not for
//! the owners of namespaces, and its Secret lies where Fedgate itself runs.

use std::time::Duration;

use model::{ClusterName, Diagnostic, ObjectName, Role, RoleSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wire::store::limits::{DELEGATION_DEPTH_MAX, TOKEN_LIFETIME_MS_MAX};

use super::status::Condition;
use super::{OWN_VERSIONS, controlled};
use crate::limits;
use crate::report::Treatment::Refuse;
use crate::report::{FieldRules, Report, quoted};

pub(crate) const KIND: controlled::Kind = controlled::Kind {
    kind: "JoinGrant",
    api_versions: OWN_VERSIONS,
    instead: "`fedctl token issue` makes a token where there is no Kubernetes",
};

const RULES: FieldRules = &[("*", Refuse("remove it, or mend its spelling"))];

/// What the token allows, read from a JoinGrant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGrant {
    pub name: ObjectName,
    /// The name that the new cluster will have.
    pub cluster: ClusterName,
    pub roles: RoleSet,
    pub delegation_depth: u32,
    /// From when the token is issued.
    pub lifetime: Duration,
    pub approve: bool,
    /// The Secret, in the namespace where Fedgate runs.
    pub secret: ObjectName,
}

#[derive(Debug, Deserialize)]
struct Document {
    spec: Spec,
}

/// What the token allows, and where it is written. It does not change: for another token make another
/// JoinGrant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self == oldSelf",
    "message": "a JoinGrant does not change: delete it, and create another one"
}]))]
pub struct Spec {
    /// The name that the new cluster will have in the federation: a label, such as "west".
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub cluster: String,
    /// What the new cluster may do for the federation. "export": export services. "admit": issue tokens
    /// itself. "admin": revoke clusters and grant namespaces. An empty list means none of it: the cluster
    /// only uses what others export.
    #[schemars(
        length(max = limits::JOIN_ROLES_MAX),
        inner(length(max = 6), regex(pattern = r"^(admit|admin|export)$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    #[serde(default = "default_roles")]
    pub roles: Vec<String>,
    /// How many generations of clusters the new cluster may admit in turn, if it has the role "admit".
    #[schemars(range(min = 0, max = DELEGATION_DEPTH_MAX))]
    #[serde(default)]
    pub delegation_depth: i64,
    /// How long the token can be used, from when it is issued: hours, minutes and seconds, such as "15m"
    /// or "1h30m"; at least a minute, at most seven days.
    #[schemars(
        length(max = 32),
        regex(pattern = r"^([0-9]{1,6}(h|m|s))+$"),
        extend("x-kubernetes-validations" = [{
            "rule": "duration(self) >= duration('1m') && duration(self) <= duration('168h')",
            "message": "write a time from \"1m\" to \"168h\", such as \"15m\""
        }])
    )]
    #[serde(default = "default_expires")]
    pub expires: String,
    /// Whether the new cluster waits, once it has used the token, until a person lets it in with
    /// `fedctl join --approve NAME`.
    #[serde(default)]
    pub approve: bool,
    /// The Secret into which the token is written.
    pub secret_ref: SecretRef,
}

/// Names a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Its name, in the namespace where Fedgate runs. Fedgate creates it, with the token under the key
    /// "token". A Secret that Fedgate did not create is left alone.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
}

/// What has become of the token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The `metadata.generation` that this status is about.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The token's id, as `fedctl token list` shows it. It is no secret.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// Pending: not issued yet, the conditions say why. Issued: in the Secret. Redeemed: the new cluster
    /// has joined. Expired: nobody used it in time. Revoked: withdrawn with `fedctl token revoke`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Until when the token can be used (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Accepted: the object is right in itself. Ready: the token is in its Secret and can be used.
    #[schemars(length(max = limits::CONDITIONS_MAX), extend(
        "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]
    ))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// The life of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    Pending,
    Issued,
    Redeemed,
    Expired,
    Revoked,
}

fn default_roles() -> Vec<String> {
    vec![Role::Export.to_string()]
}

fn default_expires() -> String {
    "15m".to_string()
}

/// Reads a JoinGrant strictly; `place` is what findings show as its place. `None` if it is not in
/// service, and the findings say why.
pub fn read(place: &str, object: &serde_json::Value) -> (Option<JoinGrant>, Vec<Diagnostic>) {
    controlled::read(place, object, &KIND, |identity, report| {
        let Document { spec } = report.read(RULES)?;
        let fix = "write the name that the new cluster will have, such as \"west\"";
        let cluster = report.parse("spec.cluster", &spec.cluster, ClusterName::parse, fix);
        let roles = roles(report, &spec.roles);
        let delegation_depth = depth(report, spec.delegation_depth);
        let lifetime = lifetime(report, &spec.expires);
        let fix = "write the name of a Secret that does not exist yet";
        let field = "spec.secretRef.name";
        let secret = report.parse(field, &spec.secret_ref.name, ObjectName::parse, fix);
        Some(JoinGrant {
            name: identity.name.clone(),
            cluster: cluster?,
            roles: roles?,
            delegation_depth: delegation_depth?,
            lifetime: lifetime?,
            approve: spec.approve,
            secret: secret?,
        })
    })
}

fn roles(report: &mut Report<'_>, listed: &[String]) -> Option<RoleSet> {
    if !report.bounded("spec.roles", listed.len(), limits::JOIN_ROLES_MAX) {
        return None;
    }
    let mut roles: Vec<Role> = Vec::new();
    for (index, text) in listed.iter().enumerate() {
        let field = format!("spec.roles[{index}]");
        match Role::ALL.into_iter().find(|role| role.as_str() == text) {
            None => {
                let message = format!("{} is no role", quoted(text));
                report.invalid(&field, message, "use admit, admin or export");
            }
            Some(role) if roles.contains(&role) => {
                let message = format!("role {role} is listed twice");
                report.invalid(&field, message, "remove one of the two");
            }
            Some(role) => roles.push(role),
        }
    }
    Some(roles.into_iter().collect())
}

fn depth(report: &mut Report<'_>, depth: i64) -> Option<u32> {
    let served = u32::try_from(depth).ok().filter(|depth| *depth <= DELEGATION_DEPTH_MAX);
    if served.is_none() {
        let fix = format!("use a number from 0 to {DELEGATION_DEPTH_MAX}");
        report.invalid("spec.delegationDepth", format!("{depth} is out of range"), &fix);
    }
    served
}

fn lifetime(report: &mut Report<'_>, text: &str) -> Option<Duration> {
    let in_range = limits::JOIN_LIFETIME_MIN..=Duration::from_millis(TOKEN_LIFETIME_MS_MAX);
    let lifetime = parse_duration(text).filter(|lifetime| in_range.contains(lifetime));
    if lifetime.is_none() {
        let message = format!("{} is no time from \"1m\" to \"168h\"", quoted(text));
        report.invalid("spec.expires", message, "write such as \"15m\" or \"1h30m\"");
    }
    lifetime
}

/// GEP-2257, without milliseconds.
fn parse_duration(text: &str) -> Option<Duration> {
    let (mut seconds, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| (1..=6).contains(n))?;
        let unit = match &rest.as_bytes()[digits] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(rest[..digits].parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(spec: Value) -> Value {
        let metadata = json!({"name": "west", "uid": "0d8e", "generation": 1});
        json!({
            "apiVersion": OWN_VERSIONS[0], "kind": "JoinGrant", "metadata": metadata, "spec": spec
        })
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let bare = object(json!({"cluster": "west", "secretRef": {"name": "west-token"}}));
        let (grant, diagnostics) = read("kubernetes", &bare);
        assert_eq!(diagnostics, []);
        let grant = grant.unwrap();
        assert_eq!(grant.roles, RoleSet::parse("export").unwrap());
        assert_eq!(grant.lifetime, Duration::from_secs(15 * 60));
        assert_eq!((grant.delegation_depth, grant.approve), (0, false));
        let none = object(json!({
            "cluster": "west", "secretRef": {"name": "x"}, "roles": [], "expires": "1h30m"
        }));
        let grant = read("kubernetes", &none).0.unwrap();
        assert_eq!((grant.roles, grant.lifetime), (RoleSet::NONE, Duration::from_secs(5400)));
    }

    #[test]
    fn what_is_wrong_is_named_and_costs_the_object() {
        for (field, value, want) in [
            ("cluster", json!("West"), "spec.cluster: cluster name \"West\" is not valid"),
            ("roles", json!(["root"]), "spec.roles[0]: \"root\" is no role"),
            ("roles", json!(["admin", "admin"]), "spec.roles[1]: role admin is listed twice"),
            ("roles", json!(["admin", "admit", "export", "admin"]), "at most 3 are served"),
            ("expires", json!("30s"), "spec.expires: \"30s\" is no time from"),
            ("expires", json!("169h"), "spec.expires: \"169h\" is no time from"),
            ("expires", json!("15"), "spec.expires: \"15\" is no time from"),
            ("expires", json!(""), "spec.expires: \"\" is no time from"),
            ("expires", json!("99999999999h"), "is no time from"),
            ("delegationDepth", json!(9), "spec.delegationDepth: 9 is out of range"),
            ("delegationDepth", json!(-1), "spec.delegationDepth: -1 is out of range"),
            ("secretRef", json!({"name": "A"}), "spec.secretRef.name: name \"A\" is not valid"),
            ("secretRef", json!({}), "spec.secretRef.name: the field is missing"),
            ("uses", json!(2), "spec.uses: the field is not served or is misspelt"),
        ] {
            let mut spec = json!({"cluster": "west", "secretRef": {"name": "west-token"}});
            spec[field] = value;
            let (grant, diagnostics) = read("kubernetes", &object(spec));
            assert_eq!(grant, None, "{want}");
            let message = diagnostics[0].to_string();
            assert!(message.contains(want), "{message} is without {want}");
        }
    }

    #[test]
    fn an_object_of_another_kind_or_in_a_namespace_is_refused() {
        let good = object(json!({"cluster": "west", "secretRef": {"name": "west-token"}}));
        let mut other = good.clone();
        other["kind"] = json!("Federation");
        let (grant, diagnostics) = read("kubernetes", &other);
        assert!(grant.is_none() && diagnostics[0].message.contains("is no JoinGrant"));
        let mut namespaced = good;
        namespaced["metadata"]["namespace"] = json!("shop");
        let (grant, diagnostics) = read("kubernetes", &namespaced);
        assert!(grant.is_none() && diagnostics[0].message.contains("is in no namespace"));
        assert!(read("kubernetes", &json!([])).0.is_none());
    }
}
