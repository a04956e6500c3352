//! Applied objects and the audit record, through the socket of the real binary.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tonic::transport::Channel;
use wire::operator::proto::operator_service_client::OperatorServiceClient;
use wire::operator::proto::{
    ApplyObjectsRequest, ChangeKind, DeleteObjectsRequest, ListAuditRequest, ListObjectsRequest,
    ManifestFile, ObjectName, ObjectSource, VerifyAuditRequest,
};

use crate::fixture::{EXPORT, Gateway, SERVICE, Site, channel, until};

const BINARY: &str = env!("CARGO_BIN_EXE_fedgate-federation");

/// A process that is killed at the end of its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn start(site: &Site) -> (Process, OperatorServiceClient<Channel>) {
    let file = site.path("federation.yaml");
    fs::write(&file, site.yaml()).unwrap();
    let mut command = Command::new(BINARY);
    let command = command.args(["--config", file.to_str().unwrap()]).stderr(Stdio::null());
    let process = Process(command.spawn().unwrap());
    let socket = site.path("run/operator.sock");
    let connects = |socket: &Path| std::os::unix::net::UnixStream::connect(socket).is_ok();
    until("the operator socket", || std::future::ready(connects(&socket)), |up| *up).await;
    (process, OperatorServiceClient::new(channel(&socket).await))
}

fn manifest(text: &str) -> ApplyObjectsRequest {
    ApplyObjectsRequest { files: vec![ManifestFile { name: "f.yaml".into(), text: text.into() }] }
}

fn export() -> ObjectName {
    ObjectName { kind: "ServiceExport".into(), namespace: "shop".into(), name: "api".into() }
}

#[tokio::test]
async fn what_was_applied_outlasts_kill_9_and_reaches_gateways() {
    let site = Site::new();
    site.write("service.yaml", SERVICE);
    let (mut process, mut node) = start(&site).await;
    let would = node.compare_objects(manifest(EXPORT)).await.unwrap().into_inner();
    assert_eq!(would.changes[0].change(), ChangeKind::Created);
    let done = node.apply_objects(manifest(EXPORT)).await.unwrap().into_inner();
    assert_eq!(done, would, "a comparison says what applying does");
    process.0.kill().unwrap();
    process.0.wait().unwrap();

    let (_process, mut node) = start(&site).await;
    let request = ListObjectsRequest { kind: "ServiceExport".into(), ..Default::default() };
    let objects = node.list_objects(request.clone()).await.unwrap().into_inner().objects;
    assert_eq!((objects.len(), objects[0].source()), (1, ObjectSource::Applied));
    assert!(objects[0].manifest.contains("generation: 1"), "{}", objects[0].manifest);
    let again = node.apply_objects(manifest(&objects[0].manifest)).await.unwrap().into_inner();
    assert_eq!(again.changes[0].change(), ChangeKind::Unchanged);

    // The killed node wrote the entry before the change and perhaps not the one after it.
    let entries = node.list_audit(ListAuditRequest { last: 0 }).await.unwrap().into_inner().entries;
    let verbs: Vec<_> = entries.iter().map(|entry| &*entry.verb).collect();
    assert_eq!(verbs, ["ApplyObjects", "ApplyObjects"]);
    let verdict = node.verify_audit(VerifyAuditRequest {}).await.unwrap().into_inner();
    assert_eq!(verdict.breaks, Vec::<String>::new());

    let delete = DeleteObjectsRequest { names: vec![export()], ignore_missing: false };
    let gone = node.delete_objects(delete.clone()).await.unwrap().into_inner();
    assert_eq!(gone.changes[0].change(), ChangeKind::Deleted);
    let refused = node.delete_objects(delete).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    assert_eq!(refused.metadata().get("x-fed-code").unwrap(), "FED4012");
}

#[tokio::test]
async fn gateways_get_applied_objects_as_they_get_files() {
    let site = Site::new();
    site.write("service.yaml", SERVICE);
    let node = site.start().await;
    let mut gateway = Gateway::subscribe(&node, "gw-0", None).await;
    gateway.until(|resources| resources.len() == 1).await;
    let mut operator = crate::fixture::operator(&node).await;
    operator.apply_objects(manifest(EXPORT)).await.unwrap();
    gateway.until(|resources| resources.len() == 2).await;
    let delete = DeleteObjectsRequest { names: vec![export()], ignore_missing: false };
    operator.delete_objects(delete).await.unwrap();
    gateway.until(|resources| resources.len() == 1).await;
    node.stop().await;
}

#[tokio::test]
async fn a_damaged_file_of_applied_objects_ends_the_start() {
    let site = Site::new();
    let node = site.start().await;
    crate::fixture::operator(&node).await.apply_objects(manifest(EXPORT)).await.unwrap();
    node.stop().await;
    let path = site.path("data/applied/objects.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("ServiceExport", "ServiceExprot")).unwrap();
    let error = site.start_error().await;
    assert!(error.starts_with("FED4010: ") && error.contains("objects.yaml:3"), "{error}");
}

#[tokio::test]
async fn operators_of_other_users_need_a_socket_that_they_can_reach() {
    let mut site = Site::new();
    site.more = "operators: {viewers: [4000000000]}\n".into();
    let node = site.start().await;
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(site.path("run/operator.sock")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o666, "each call is judged by its peer credentials");
    node.stop().await;
    let yaml = site.yaml().replace("operator: run/operator.sock", "operator: data/run/o.sock");
    let config = federation::config::FederationConfig::from_yaml(&yaml, &site.path("f.yaml"));
    let error = federation::app::build(config.unwrap()).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("operators lists Unix user 4000000000, which cannot reach"), "{error}");
    assert!(error.contains("set `sockets.operator` to a path outside of it"), "{error}");
}
