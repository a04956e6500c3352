//! Whether an API server has a kind in a version, by its discovery documents.
//!
//! A list would tell as well, but kube logs a warning for every answer that it cannot read, and
//! "404 page not found" is one: a cluster without some definitions would fill its log.

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;
use kube::client::Body;

use super::kinds::WatchedKind;
use crate::limits;

/// What no document denies may be served: then a list tells, and what is wrong with it.
pub(super) async fn may_be_served(
    client: &Client,
    kind: WatchedKind,
    version: &str,
) -> kube::Result<bool> {
    if kind.is_built_in() {
        return Ok(true);
    }
    let resource = kind.api_resource(version);
    let request = Request::get(format!("/apis/{}", resource.api_version)).body(Body::empty());
    let response = client.send(request.map_err(kube::Error::HttpError)?).await?;
    match response.status() {
        StatusCode::NOT_FOUND => return Ok(false),
        StatusCode::OK => {}
        _ => return Ok(true),
    }
    let body = Limited::new(response.into_body(), limits::DISCOVERY_BYTES_MAX).collect().await;
    let Ok(body) = body else { return Ok(true) };
    Ok(match serde_json::from_slice::<APIResourceList>(&body.to_bytes()) {
        Ok(list) => list.resources.iter().any(|served| served.name == resource.plural),
        Err(_) => true,
    })
}
