//! The file provider on real folders. Every wait is for a condition.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use discovery::Catalog;
use discovery::file::{FileProvider, FileProviderConfig, StartError};
use model::code;
use tempfile::TempDir;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);

fn export(name: &str) -> String {
    format!(
        "---\napiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\n\
         metadata: {{name: {name}, namespace: shop}}\n"
    )
}

fn exports(names: impl IntoIterator<Item = usize>) -> String {
    names.into_iter().map(|number| export(&format!("x{number}"))).collect()
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

/// Rescans only every minute: what a test sees, it sees by events.
fn start(folder: &Path) -> (FileProvider, watch::Receiver<Arc<Catalog>>) {
    let rescan_interval = Duration::from_secs(60);
    start_with(FileProviderConfig { rescan_interval, ..FileProviderConfig::new(folder) })
}

fn start_with(config: FileProviderConfig) -> (FileProvider, watch::Receiver<Arc<Catalog>>) {
    let provider = FileProvider::start(config).unwrap();
    let catalog = provider.subscribe();
    (provider, catalog)
}

/// Names of the objects, and codes of the diagnostics.
fn shape(catalog: &Catalog) -> String {
    let names = catalog.resources.iter().map(|(key, _)| key.name.to_string());
    let codes = catalog.diagnostics.iter().map(|found| found.code.to_string());
    names.chain(codes).collect::<Vec<_>>().join(" ")
}

async fn until(catalog: &mut watch::Receiver<Arc<Catalog>>, want: &str) -> Arc<Catalog> {
    let reached = catalog.wait_for(|catalog| shape(catalog) == want);
    let outcome = tokio::time::timeout(PATIENCE, reached).await.map(|found| found.unwrap().clone());
    outcome.unwrap_or_else(|_| panic!("want {want:?}, have {:?}", shape(&catalog.borrow())))
}

#[tokio::test]
async fn files_come_change_and_go() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "a.yaml", &export("a"));
    let (_provider, mut catalog) = start(folder.path());
    assert_eq!(shape(&catalog.borrow()), "a");
    assert_eq!(catalog.borrow().sequence, 1);
    write(folder.path(), "b.yml", &export("b"));
    until(&mut catalog, "a b").await;
    write(folder.path(), "a.yaml", &export("c"));
    until(&mut catalog, "b c").await;
    fs::rename(folder.path().join("a.yaml"), folder.path().join("d.json")).unwrap();
    write(folder.path(), "e.yaml", &export("e"));
    until(&mut catalog, "b c e").await;
    fs::remove_file(folder.path().join("b.yml")).unwrap();
    let last = until(&mut catalog, "c e").await;
    assert!(last.sequence >= 5);
}

#[tokio::test]
async fn what_is_no_manifest_is_not_read() {
    let folder = TempDir::new().unwrap();
    for name in [".hidden.yaml", "a.yaml~", "#a.yaml#", ".a.yaml.swp", "a.yaml.tmp", "notes.txt"] {
        write(folder.path(), name, &export("wrong"));
    }
    fs::create_dir(folder.path().join("folder.yaml")).unwrap();
    let (_provider, mut catalog) = start(folder.path());
    assert_eq!(shape(&catalog.borrow()), "");
    let _socket = UnixListener::bind(folder.path().join("socket.yaml")).unwrap();
    symlink("nowhere", folder.path().join("broken.yaml")).unwrap();
    fs::write(folder.path().join("bytes.yaml"), b"a: \xff").unwrap();
    let huge = " ".repeat(api::limits::MANIFEST_BYTES_MAX + 1);
    write(folder.path(), "huge.yaml", &huge);
    let last = until(&mut catalog, "FED4010 FED4010 FED4010 FED4010").await;
    let messages: Vec<_> = last.diagnostics.iter().map(ToString::to_string).collect();
    for (message, want) in messages.iter().zip([
        "error FED4010 broken.yaml: the file cannot be read: No such file or directory (os error \
         2); what it said last is in service; mend the file, its link or its permissions",
        "error FED4010 bytes.yaml: the file cannot be read: it is not UTF-8; what it said last is \
         in service; mend the file, its link or its permissions",
        "error FED4010 huge.yaml: the file cannot be read: it has more than 4194304 bytes; what it \
         said last is in service; mend the file, its link or its permissions",
        "error FED4010 socket.yaml: the file cannot be read: it is not a regular file; what it \
         said last is in service; mend the file, its link or its permissions",
    ]) {
        assert_eq!(message, want);
    }
}

#[tokio::test]
async fn a_file_that_is_broken_keeps_what_it_said() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "a.yaml", &export("a"));
    write(folder.path(), "b.yaml", &export("b"));
    let (_provider, mut catalog) = start(folder.path());
    write(folder.path(), "a.yaml", "metadata: [");
    until(&mut catalog, "a b FED4010").await;
    write(folder.path(), "a.yaml", &export("c"));
    until(&mut catalog, "b c").await;
    // A broken file that is removed is gone, with what it said.
    write(folder.path(), "a.yaml", "metadata: [");
    until(&mut catalog, "b c FED4010").await;
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    until(&mut catalog, "b").await;
}

/// As the kubelet mounts a ConfigMap: `a.yaml -> ..data/a.yaml`, `..data -> ..generation`.
#[tokio::test]
async fn a_mounted_config_map_is_swapped_as_a_whole() {
    let folder = TempDir::new().unwrap();
    let generation = |name: &str, text: &str| {
        fs::create_dir(folder.path().join(name)).unwrap();
        write(&folder.path().join(name), "a.yaml", text);
        write(&folder.path().join(name), "b.yaml", &text.replace("name: ", "name: also-"));
    };
    generation("..one", &export("old"));
    symlink("..one", folder.path().join("..data")).unwrap();
    for name in ["a.yaml", "b.yaml"] {
        symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
    }
    let (_provider, mut catalog) = start(folder.path());
    assert_eq!(shape(&catalog.borrow()), "also-old old");
    generation("..two", &export("new"));
    symlink("..two", folder.path().join("..data_tmp")).unwrap();
    fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    fs::remove_dir_all(folder.path().join("..one")).unwrap();
    until(&mut catalog, "also-new new").await;
}

#[tokio::test]
async fn most_objects_gone_at_once_are_held_and_a_few_are_not() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "many.yaml", &exports(10..22));
    write(folder.path(), "few.yaml", &exports(0..2));
    let confirm_window = Duration::from_secs(2);
    let config = FileProviderConfig { confirm_window, ..FileProviderConfig::new(folder.path()) };
    let (_provider, mut catalog) = start_with(config);
    let all = shape(&catalog.borrow());
    fs::remove_file(folder.path().join("many.yaml")).unwrap();
    let held = until(&mut catalog, &format!("{all} FED4009")).await;
    assert_eq!(
        held.diagnostics[0].to_string(),
        "warning FED4009 manifests: 12 of 14 objects vanished at once; they stay in service for \
         2 s; bring the files back; if the removal is meant, wait"
    );
    // Back again, all but two: those are a small removal, and it is immediate.
    write(folder.path(), "many.yaml", &exports(10..20));
    let fewer = exports(0..2) + &exports(10..20);
    until(&mut catalog, &shape_of(&fewer)).await;
    // And meant this time.
    fs::remove_file(folder.path().join("many.yaml")).unwrap();
    until(&mut catalog, &format!("{} FED4009", shape_of(&fewer))).await;
    until(&mut catalog, "x0 x1").await;
}

fn shape_of(text: &str) -> String {
    let (resources, _) = discovery::translate(&[("x", text)]);
    shape(&Catalog { resources: resources.into_iter().collect(), ..Catalog::default() })
}

#[tokio::test]
async fn a_folder_that_vanishes_and_returns_empty_is_held_however_small() {
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    write(&folder, "a.yaml", &export("a"));
    let rescan_interval = Duration::from_millis(20);
    let confirm_window = Duration::from_secs(2);
    let (_provider, mut catalog) =
        start_with(FileProviderConfig { folder: folder.clone(), confirm_window, rescan_interval });
    fs::rename(&folder, parent.path().join("away")).unwrap();
    let gone = until(&mut catalog, "a FED4010").await;
    assert_eq!(
        gone.diagnostics[0].to_string(),
        "error FED4010 manifests: the folder cannot be read: No such file or directory (os error \
         2); what it said last is in service; bring the folder back, or mend its permissions"
    );
    fs::create_dir(&folder).unwrap();
    until(&mut catalog, "a FED4009").await;
    until(&mut catalog, "").await;
    write(&folder, "b.yaml", &export("b"));
    until(&mut catalog, "b").await;
}

#[tokio::test]
async fn a_folder_that_takes_the_name_is_watched() {
    let parent = TempDir::new().unwrap();
    let (old, new, link) =
        (parent.path().join("old"), parent.path().join("new"), parent.path().join("link"));
    fs::create_dir(&old).unwrap();
    fs::create_dir(&new).unwrap();
    write(&old, "a.yaml", &export("a"));
    write(&new, "b.yaml", &export("b"));
    symlink(&old, &link).unwrap();
    let rescan_interval = Duration::from_millis(20);
    let (_provider, mut catalog) =
        start_with(FileProviderConfig { rescan_interval, ..FileProviderConfig::new(&link) });
    symlink(&new, parent.path().join("link2")).unwrap();
    fs::rename(parent.path().join("link2"), &link).unwrap();
    until(&mut catalog, "b").await;
}

#[tokio::test]
async fn dropping_the_provider_ends_it() {
    let folder = TempDir::new().unwrap();
    let (provider, mut catalog) = start(folder.path());
    drop(provider);
    assert!(catalog.changed().await.is_err(), "the sender lives in the provider's thread");
}

#[test]
fn a_folder_that_cannot_be_read_is_refused_at_the_start() {
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("gone");
    let error = FileProvider::start(FileProviderConfig::new(&folder)).unwrap_err();
    assert!(matches!(error, StartError::Folder { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "the manifest folder {folder:?} cannot be read: No such file or directory (os error \
             2); create the folder, or mend its path or its permissions"
        )
    );
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = FileProvider::start(FileProviderConfig::new(&file)).unwrap_err().to_string();
    assert!(error.contains("Not a directory"), "{error}");
}

#[test]
fn codes_used_here_are_those_of_the_registry() {
    let names = [code::FILE_UNREADABLE, code::MASS_DELETE_HELD].map(|code| code.entry().name);
    assert_eq!(names, ["FileUnreadable", "MassDeleteHeld"]);
}
