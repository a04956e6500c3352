//! `gateway.networking.k8s.io GatewayClass`: which Gateways are ours.

use std::collections::BTreeSet;

use crate::GATEWAY_CLASS;
use crate::kubernetes::CONTROLLER_NAME;

/// The names of the classes whose Gateways are ours; `fedgate` alone where there are no
/// GatewayClasses, as in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayClasses(BTreeSet<String>);

impl GatewayClasses {
    /// Of all GatewayClasses of a cluster those that name our controller.
    pub fn of_objects<'a>(classes: impl IntoIterator<Item = &'a serde_json::Value>) -> Self {
        let ours = classes.into_iter().filter(|class| {
            class.pointer("/spec/controllerName").and_then(|name| name.as_str())
                == Some(CONTROLLER_NAME)
        });
        let name = |class: &serde_json::Value| {
            class.pointer("/metadata/name").and_then(|name| name.as_str()).map(str::to_string)
        };
        Self(ours.filter_map(name).collect())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

impl Default for GatewayClasses {
    fn default() -> Self {
        Self([GATEWAY_CLASS.to_string()].into())
    }
}

impl<N: Into<String>> FromIterator<N> for GatewayClasses {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::parse_object_of;

    #[test]
    fn a_gateway_is_ours_if_its_class_names_our_controller() {
        let class = |name: &str, controller: &str| {
            let spec = json!({"controllerName": controller});
            json!({"metadata": {"name": name}, "spec": spec})
        };
        let classes =
            [class("east-west", CONTROLLER_NAME), class("fedgate", "example.com/other"), json!({})];
        let classes = GatewayClasses::of_objects(&classes);
        let gateway = |class: &str| {
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": {"name": "edge", "namespace": "shop"},
                "spec": {
                    "gatewayClassName": class,
                    "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]
                }
            })
        };
        let ours = parse_object_of("kubernetes", &gateway("east-west"), &classes);
        assert_eq!((ours.objects.len(), ours.diagnostics), (1, vec![]));
        let others = parse_object_of("kubernetes", &gateway("fedgate"), &classes);
        assert_eq!((others.objects.len(), others.diagnostics), (0, vec![]));
        let by_name = crate::parse_object("kubernetes", &gateway("fedgate"));
        assert_eq!(by_name.objects.len(), 1);
    }
}
