//! How people name kinds and objects: `accesspolicies`, `svc`, `shop/api`.

use model::ResourceKind;
use wire::operator::proto::ObjectName;

use crate::error::CommandError;

/// Short names, as kubectl, Gateway API and MCS have them.
const SHORT: &[(&str, ResourceKind)] = &[
    ("svc", ResourceKind::Service),
    ("export", ResourceKind::ServiceExport),
    ("svcex", ResourceKind::ServiceExport),
    ("import", ResourceKind::ServiceImport),
    ("svcim", ResourceKind::ServiceImport),
    ("gtw", ResourceKind::Gateway),
    ("route", ResourceKind::HttpRoute),
    ("policy", ResourceKind::AccessPolicy),
    ("ap", ResourceKind::AccessPolicy),
    ("peer", ResourceKind::ClusterPeer),
    ("fcp", ResourceKind::ClusterPeer),
    ("grant", ResourceKind::NamespaceGrant),
];

/// A kind by its name in any case, in the plural, or short.
pub(super) fn kind(text: &str) -> Result<ResourceKind, CommandError> {
    let lower = text.to_lowercase();
    let named = |kind: &ResourceKind| {
        let name = kind.as_str().to_lowercase();
        let ies = name.strip_suffix('y').map(|stem| format!("{stem}ies"));
        lower == name || lower == format!("{name}s") || Some(&lower) == ies.as_ref()
    };
    let is_short = |short: &str| lower == short || lower.strip_suffix('s') == Some(short);
    let short = || SHORT.iter().find(|(short, _)| is_short(short)).map(|(_, kind)| *kind);
    ResourceKind::ALL.into_iter().find(named).or_else(short).ok_or_else(|| {
        let all: Vec<&str> = ResourceKind::ALL.iter().map(|kind| kind.as_str()).collect();
        CommandError::usage(format!("there is no kind {text:?}"))
            .hint(format!("the kinds are {}", all.join(", ")))
    })
}

/// `NAMESPACE/NAME`, or `NAME` with the namespace given apart.
pub(super) fn split_name<'a>(
    name: &'a str,
    namespace: Option<&'a str>,
) -> Result<(Option<&'a str>, &'a str), CommandError> {
    match (name.split_once('/'), namespace) {
        (None, namespace) => Ok((namespace, name)),
        (Some((within, name)), None) => Ok((Some(within), name)),
        (Some((within, name)), Some(namespace)) if within == namespace => Ok((Some(within), name)),
        (Some(_), Some(namespace)) => {
            Err(CommandError::usage(format!("{name:?} and --namespace {namespace:?} disagree"))
                .hint("leave one of the two out"))
        }
    }
}

/// The one object that is meant.
pub(super) fn object_name(
    kind: ResourceKind,
    name: &str,
    namespace: Option<&str>,
) -> Result<ObjectName, CommandError> {
    let (namespace, name) = split_name(name, namespace)?;
    let kind_name = kind.as_str();
    let namespace = match (namespace, kind.is_namespaced()) {
        (Some(namespace), true) => namespace,
        (None, false) => "",
        (None, true) => {
            return Err(CommandError::usage(format!("{kind_name} {name}: in which namespace?"))
                .hint(format!("write NAMESPACE/{name}, or add -n NAMESPACE")));
        }
        (Some(_), false) => {
            return Err(CommandError::usage(format!("a {kind_name} is in no namespace"))
                .hint(format!("write {name} alone")));
        }
    };
    Ok(ObjectName { kind: kind_name.into(), namespace: namespace.into(), name: name.into() })
}

/// `AccessPolicy/shop/api`.
pub(super) fn shown(name: &ObjectName) -> String {
    let ObjectName { kind, namespace, name } = name;
    match &**namespace {
        "" => format!("{kind}/{name}"),
        namespace => format!("{kind}/{namespace}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::shown as full;
    use super::*;

    #[test]
    fn kinds_are_found_however_they_are_written() {
        for (text, want) in [
            ("AccessPolicy", ResourceKind::AccessPolicy),
            ("accesspolicies", ResourceKind::AccessPolicy),
            ("ap", ResourceKind::AccessPolicy),
            ("httproutes", ResourceKind::HttpRoute),
            ("svc", ResourceKind::Service),
            ("gateways", ResourceKind::Gateway),
            ("NamespaceGrant", ResourceKind::NamespaceGrant),
            ("grants", ResourceKind::NamespaceGrant),
        ] {
            assert_eq!(kind(text).unwrap(), want, "{text}");
        }
        for (short, want) in SHORT {
            assert_eq!(kind(short).unwrap(), *want, "no kind's own name hides {short}");
        }
        let error = kind("pods").unwrap_err().to_string();
        assert!(error.contains("no kind \"pods\"") && error.contains("ServiceExport"), "{error}");
    }

    #[test]
    fn names_say_their_namespace_once() {
        let policy = ResourceKind::AccessPolicy;
        let shown = |name: &str, namespace| {
            Ok::<_, CommandError>(full(&object_name(policy, name, namespace)?))
        };
        assert_eq!(shown("shop/api", None).unwrap(), "AccessPolicy/shop/api");
        assert_eq!(shown("api", Some("shop")).unwrap(), "AccessPolicy/shop/api");
        assert_eq!(shown("shop/api", Some("shop")).unwrap(), "AccessPolicy/shop/api");
        let error = shown("api", None).unwrap_err().to_string();
        assert!(error.contains("in which namespace") && error.contains("NAMESPACE/api"), "{error}");
        let error = shown("shop/api", Some("other")).unwrap_err().to_string();
        assert!(error.contains("disagree"), "{error}");
        let error = object_name(ResourceKind::ClusterPeer, "a/b", None).unwrap_err().to_string();
        assert!(error.contains("is in no namespace"), "{error}");
    }
}
