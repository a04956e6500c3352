//! Names of what is made for an import.

use std::fmt::Write as _;

use model::{Namespace, ObjectName, ServiceName};
use sha2::{Digest as _, Sha256};

/// The namespace of the Gateways and routes that are made for imports. Nothing that a user declares
/// in it is taken up, see [`super::reserve`].
pub(crate) const IMPORTS_NAMESPACE: &str = "fedgate-imports";
/// What the name of every derived Service begins with.
const DERIVED_PREFIX: &str = "imported-";

/// RFC 1123 label, as a Service's name is.
const LABEL_MAX: usize = 63;
/// RFC 1123 subdomain.
const SUBDOMAIN_MAX: usize = 253;
/// Hexadecimal digits of the hash that makes a shortened name unique again.
const HASH_DIGITS: usize = 10;

/// The Service through which pods reach an import.
pub(crate) fn derived_service(import: &ObjectName) -> String {
    let name = format!("{DERIVED_PREFIX}{import}");
    // An import may have been exported where names of services have dots; a Service cannot.
    if name.contains('.') {
        return with_hash(&name.replace('.', "-"), &name, LABEL_MAX);
    }
    shortened(&name, LABEL_MAX)
}

/// The derived Service with its namespace.
pub(super) fn derived(import: &ServiceName) -> ServiceName {
    let name = ObjectName::parse(&derived_service(&import.name));
    let name = name.expect("an RFC 1123 label is an RFC 1123 subdomain");
    ServiceName::new(import.namespace.clone(), name)
}

/// The import's name as a label's value, which is shorter than a name may be.
pub(super) fn label(import: &ObjectName) -> String {
    shortened(import.as_str(), LABEL_MAX)
}

/// The Gateway with the import's listeners. A namespace has no dot, so that no two imports share it.
pub(super) fn gateway(import: &ServiceName) -> ObjectName {
    object(&format!("{}.{}", import.namespace, import.name))
}

/// The route of one port of an import.
pub(super) fn route(import: &ServiceName, port: u16) -> ObjectName {
    object(&format!("{}.{}.{port}", import.namespace, import.name))
}

pub(super) fn listener(port: u16) -> ObjectName {
    object(&format!("port-{port}"))
}

pub(super) fn imports_namespace() -> Namespace {
    Namespace::parse(IMPORTS_NAMESPACE).expect("the constant is an RFC 1123 label")
}

fn object(name: &str) -> ObjectName {
    let name = shortened(name, SUBDOMAIN_MAX);
    ObjectName::parse(&name).expect("names joined by a dot and cut before a hash are a subdomain")
}

fn shortened(name: &str, most: usize) -> String {
    if name.len() <= most { name.to_string() } else { with_hash(name, name, most) }
}

/// As much of `begin` as fits before a hash of `name`.
fn with_hash(begin: &str, name: &str, most: usize) -> String {
    let kept = &begin[..begin.len().min(most - HASH_DIGITS - 1)];
    let mut short = format!("{}-", kept.trim_end_matches(['-', '.']));
    for byte in &Sha256::digest(name.as_bytes())[..HASH_DIGITS / 2] {
        write!(short, "{byte:02x}").expect("writing to a String does not fail");
    }
    short
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
        assert_eq!(gateway(&service(&long)).as_str().len(), 253);
        assert_ne!(route(&service(&long), 80), route(&service(&long), 81));
    }
}
