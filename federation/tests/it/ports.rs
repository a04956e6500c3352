//! The node's TCP ports, for gateways and operators in other pods.

mod api_server;
mod callers;
mod gateways;
mod health;

use federation::app::{self, App};
use federation::config::FederationConfig;

use crate::fixture::Site;
use api_server::ApiServer;

const GATEWAY_TOKEN: &str = "fedgate:fedgate-system:fedgate-gateway:gw-0";
const OPERATOR_TOKEN: &str = "fedgate-operator:fedgate-system:fedgate-operator:";

/// A node with all its ports, whose tokens this API server reviews.
async fn node(site: &Site, api: kube::Client) -> App {
    let yaml = format!(
        "{}\
listen: {{gateways: \"127.0.0.1:0\", relay: \"127.0.0.1:0\", operators: \"127.0.0.1:0\"}}
enrolment: {{serviceAccounts: [fedgate-system/fedgate-gateway]}}
operators:
  serviceAccounts:
    operators: [fedgate-system/fedgate-operator]
    viewers: [fedgate-system/fedgate-viewer]
",
        site.yaml()
    );
    let config = FederationConfig::from_yaml(&yaml, &site.path("federation.yaml")).unwrap();
    app::build_with(config, Some(api)).await.unwrap()
}
