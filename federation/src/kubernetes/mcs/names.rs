//! Names of what is made for an import.

use model::{Namespace, ObjectName, ServiceName};

use crate::kubernetes::names::label_of;

/// The namespace of the Gateways and routes that are made for imports. Nothing that a user declares
/// in it is taken up, see [`super::reserve`].
pub(crate) use model::snapshot::IMPORTS_NAMESPACE;
/// What the name of every derived Service begins with.
const DERIVED_PREFIX: &str = "imported-";

/// RFC 1123 label, as a Service's name is.
const LABEL_MAX: usize = 63;
/// RFC 1123 subdomain.
const SUBDOMAIN_MAX: usize = 253;

/// The Service through which pods reach an import. Where the import was exported, names of services
/// may have dots; a Service's has none.
pub(crate) fn derived_service(import: &ObjectName) -> String {
    label_of(&format!("{DERIVED_PREFIX}{import}"))
}

/// The derived Service with its namespace.
pub(super) fn derived(import: &ServiceName) -> ServiceName {
    let name = ObjectName::parse(&derived_service(&import.name));
    let name = name.expect("an RFC 1123 label is an RFC 1123 subdomain");
    ServiceName::new(import.namespace.clone(), name)
}

/// The import's name as a label's value, which is shorter than a name may be.
pub(super) fn label(import: &ObjectName) -> String {
    let name = import.as_str();
    if name.len() <= LABEL_MAX { name.to_string() } else { label_of(name) }
}

/// The Gateway with the import's listeners. A namespace has no dot, so that no two imports share it.
pub(super) fn gateway(import: &ServiceName) -> ObjectName {
    object(&format!("{}.{}", import.namespace, import.name))
}

/// The route of one port of an import.
pub(super) fn route(import: &ServiceName, port: u16) -> ObjectName {
    object(&format!("{}.{}.{port}", import.namespace, import.name))
}

/// What lets the routes into an import's namespace; with a number if a user's has the name.
pub(super) fn grant(number: u32) -> ObjectName {
    match number {
        0 => object(IMPORTS_NAMESPACE),
        number => object(&format!("{IMPORTS_NAMESPACE}-{number}")),
    }
}

pub(super) fn listener(port: u16) -> ObjectName {
    object(&format!("port-{port}"))
}

pub(super) fn imports_namespace() -> Namespace {
    Namespace::parse(IMPORTS_NAMESPACE).expect("the constant is an RFC 1123 label")
}

/// As much of a long name as fits before a hash of all of it.
fn object(name: &str) -> ObjectName {
    let name = if name.len() <= SUBDOMAIN_MAX {
        name.to_string()
    } else {
        let kept = name[..SUBDOMAIN_MAX - LABEL_MAX - 1].trim_end_matches(['-', '.']);
        format!("{kept}.{}", label_of(name))
    };
    ObjectName::parse(&name).expect("names joined by a dot and cut before a label are a subdomain")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(name: &str) -> String {
        derived_service(&ObjectName::parse(name).unwrap())
    }

    #[test]
    fn derived_services_have_names_that_kubernetes_takes() {
        assert_eq!(derived("api"), "imported-api");
        assert_eq!(derived(&"a".repeat(54)).len(), 63);
        let long = derived(&"a".repeat(63));
        assert_eq!(long.len(), 63);
        assert!(long.starts_with("imported-aaaa"), "{long}");
        assert_ne!(long, derived(&"a".repeat(62)), "what was cut off still counts");
        let dotted = derived("api.v2");
        assert!(dotted.starts_with("imported-api-v2-"), "{dotted}");
        assert_ne!(dotted, derived("api-v2"));
    }

    #[test]
    fn gateways_and_routes_have_names_of_their_own() {
        let service = |text: &str| ServiceName::parse(text).unwrap();
        assert_eq!(gateway(&service("shop/api")).as_str(), "shop.api");
        assert_eq!(route(&service("shop/api"), 80).as_str(), "shop.api.80");
        assert_ne!(route(&service("shop/api.80"), 1), route(&service("shop/api"), 80));
        let labels = vec!["b".repeat(63); 4].join(".");
        let long = format!("{}/{}", "n".repeat(63), &labels[..253]);
        assert!(gateway(&service(&long)).as_str().len() <= 253);
        assert_ne!(route(&service(&long), 80), route(&service(&long), 81));
    }
}
