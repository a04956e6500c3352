//! Starting: what the node makes, and what it refuses to start with.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::fixture::Site;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn what_the_node_makes_is_private() {
    let site = Site::new();
    let node = site.start().await;
    assert_eq!(mode(&site.path("data")), 0o700);
    assert_eq!(mode(&site.path("data/ca/ca.key")), 0o600);
    assert_eq!(mode(&site.path("data/svid/svid.pem")), 0o600);
    assert_eq!(mode(node.resource_socket()), 0o600);
    assert_eq!(mode(node.operator_socket()), 0o600);
    let sockets = [node.resource_socket().to_path_buf(), node.operator_socket().to_path_buf()];
    node.stop().await;
    for socket in sockets {
        assert!(!socket.exists(), "{} stays behind", socket.display());
    }
}

#[tokio::test]
async fn two_nodes_do_not_share_a_data_folder() {
    let site = Site::new();
    let node = site.start().await;
    let error = site.start_error().await;
    assert!(error.starts_with("FED1003: dataDir "), "{error}");
    assert!(error.contains("is in use by another fedgate-federation; stop that one"), "{error}");
    node.stop().await;
    site.start().await.stop().await;
}

#[tokio::test]
async fn the_socket_of_a_dead_process_is_replaced() {
    let site = Site::new();
    fs::create_dir(site.path("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(site.path("run/resource.sock")).unwrap());
    assert!(site.path("run/resource.sock").exists());
    site.start().await.stop().await;
}

#[tokio::test]
async fn the_socket_of_a_live_process_is_left_alone() {
    let site = Site::new();
    fs::create_dir(site.path("run")).unwrap();
    let socket = site.path("run/operator.sock");
    let live = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let error = site.start_error().await;
    assert!(error.starts_with("FED1002: a process is listening on "), "{error}");
    assert!(error.contains("set `sockets.operator` to another path"), "{error}");
    assert!(!site.path("run/resource.sock").exists(), "what was bound before is removed");
    drop(live);
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "a file").unwrap();
    let error = site.start_error().await;
    assert!(error.contains("exists and is no socket; remove it"), "{error}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "a file");
}

#[tokio::test]
async fn keys_that_others_can_read_are_not_used() {
    let site = Site::new();
    site.start().await.stop().await;
    for (file, name) in [("data/ca/ca.key", "ca.key"), ("data/svid/svid.pem", "svid.pem")] {
        let path = site.path(file);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = site.start_error().await;
        assert!(error.starts_with("FED3004: "), "{error}");
        assert!(error.contains(name) && error.contains("mode 0644"), "{error}");
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    site.start().await.stop().await;
}

#[tokio::test]
async fn a_data_folder_that_is_none_or_open_to_others_is_refused() {
    let site = Site::new();
    fs::write(site.path("data"), "").unwrap();
    let error = site.start_error().await;
    assert!(error.starts_with("FED1003: ") && error.contains("is not a folder"), "{error}");
    fs::remove_file(site.path("data")).unwrap();
    fs::create_dir(site.path("data")).unwrap();
    fs::set_permissions(site.path("data"), Permissions::from_mode(0o755)).unwrap();
    let error = site.start_error().await;
    assert!(error.contains("has mode 0755") && error.contains("chmod 700"), "{error}");
}

#[tokio::test]
async fn a_missing_manifest_folder_is_named() {
    let site = Site::new();
    fs::remove_dir(site.path("manifests")).unwrap();
    let error = site.start_error().await;
    assert!(error.starts_with("FED4010: the manifest folder "), "{error}");
    assert!(error.contains("create the folder, or mend its path"), "{error}");
}

#[tokio::test]
async fn a_damaged_epoch_is_not_guessed_at() {
    let site = Site::new();
    site.start().await.stop().await;
    fs::write(site.path("data/epoch"), "many\n").unwrap();
    let error = site.start_error().await;
    assert!(error.starts_with("FED1003: ") && error.contains("holds \"many"), "{error}");
}

#[tokio::test]
async fn users_that_cannot_reach_the_socket_are_named() {
    let mut site = Site::new();
    site.more = "enrolment: {uids: [4242]}\n".into();
    let yaml = site.yaml().replace("run/resource.sock", "data/run/resource.sock");
    let config =
        federation::config::FederationConfig::from_yaml(&yaml, &site.path("federation.yaml"));
    let error = federation::app::build(config.unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("Unix user 4242, which cannot reach"), "{error}");
    assert!(error.contains("set `sockets.resource` to a path outside"), "{error}");
}
