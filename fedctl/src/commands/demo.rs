//! `fedctl demo`: bring the demo up, look at it, break it, take it down.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::contexts_path;
use crate::cli::{Demo as Verb, DemoFolder, DemoUp};
use crate::context::{Context, Contexts};
use crate::demo::control::{self, Answer, Ask, Asked, DemoCluster, DemoStatus};
use crate::demo::fleet::trust_domain;
use crate::demo::manifests::{HTTP_PORT, PUBLIC_HOST, tcp_port};
use crate::demo::story::{CLUSTERS, Demo, tcp_services};
use crate::error::{CommandError, Exit};
use crate::printer::{Printer, on_a_terminal, table};

/// How long `--detach` waits for the demo to be ready.
const DETACH_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Unix socket paths end at 107 bytes (unix(7)); ours add this much to the folder's.
const SOCKET_PATH_BYTES_MAX: usize = 107 - "/south/operator.sock".len();

pub(super) async fn run(verb: Verb, printer: &Printer) -> Result<(), CommandError> {
    match verb {
        Verb::Up(DemoUp { detach: true, folder, .. }) => {
            detach(&data_folder(folder)?, printer).await
        }
        Verb::Up(DemoUp { in_background, folder, .. }) => {
            up(&data_folder(folder)?, in_background, printer).await
        }
        Verb::Status(folder) => match control::ask(&data_folder(folder)?, &Ask::Status).await? {
            Answer::Status(status) => printer.result(&status, status_table),
            other => Err(unexpected(&other)),
        },
        Verb::Cut(target) => {
            tell(&data_folder(target.folder)?, Ask::Cut { cluster: target.cluster }, printer).await
        }
        Verb::Heal(target) => {
            tell(&data_folder(target.folder)?, Ask::Heal { cluster: target.cluster }, printer).await
        }
        Verb::Down(folder) => tell(&data_folder(folder)?, Ask::Down, printer).await,
    }
}

/// The whole story in this process. With a person watching (or in the background) it stays up
/// until told otherwise; without, it ends by itself.
async fn up(folder: &Path, in_background: bool, printer: &Printer) -> Result<(), CommandError> {
    let listener = claim(folder).await?;
    let outcome = story(folder, listener, in_background, printer).await;
    forget_contexts()?;
    let _already_gone = std::fs::remove_file(control::socket_path(folder));
    outcome
}

async fn story(
    folder: &Path,
    listener: UnixListener,
    in_background: bool,
    printer: &Printer,
) -> Result<(), CommandError> {
    let mut signals = Signals::catch()?;
    let mut demo = tokio::select! {
        demo = Demo::start(folder, printer) => demo?,
        () = signals.recv() => return Err(interrupted()),
    };
    remember_contexts(&demo)?;
    let (questions, mut asked) = mpsc::channel(8);
    let server = tokio::spawn(control::serve(listener, questions));
    let told = async {
        if in_background {
            return hold(&demo, folder, &mut asked, &mut signals).await;
        }
        suggest(&demo, printer);
        let faults = async {
            demo.lose_west(printer).await?;
            demo.lose_leader(printer).await?;
            demo.south_leaves(printer).await
        };
        tokio::select! {
            told = faults => told?,
            () = signals.recv() => return Err(interrupted()),
        };
        if on_a_terminal() {
            printer.talk("The demo stays up. Ctrl-C ends it.");
            return hold(&demo, folder, &mut asked, &mut signals).await;
        }
        Ok(())
    };
    let outcome = told.await;
    drop(asked);
    let _ended = server.await;
    demo.stop().await;
    if outcome.is_ok() {
        printer.talk("Taken down.");
    }
    outcome
}

/// SIGTERM and Ctrl-C, caught from the start, so that nothing is left behind whenever they come.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> anyhow::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The story was not told to its end, so it is no success.
fn interrupted() -> CommandError {
    CommandError::failed("the demo was interrupted before its story's end")
}

fn suggest(demo: &Demo, printer: &Printer) {
    let (http, tcp) = (demo.public_http(), demo.public_tcp());
    printer.talk(&format!(
        "Try, from another terminal:\n  \
         curl -H 'Host: {PUBLIC_HOST}' http://{http}/\n  \
         echo hello | nc -N {} {}\n  \
         fedctl status      fedctl links      fedctl services      fedctl --context demo-west status\n  \
         fedctl demo cut south      fedctl demo heal south      fedctl demo status",
        tcp.ip(),
        tcp.port(),
    ));
}

/// Answers other terminals until one says `down` or a signal comes.
async fn hold(
    demo: &Demo,
    folder: &Path,
    asked: &mut mpsc::Receiver<Asked>,
    signals: &mut Signals,
) -> Result<(), CommandError> {
    loop {
        let Asked { ask, answer } = tokio::select! {
            () = signals.recv() => return Ok(()),
            Some(asked) = asked.recv() => asked,
        };
        let relay = demo.fleet.relay();
        let done = |message: String| Answer::Done { message };
        let reply = match &ask {
            Ask::Status => Answer::Status(demo_status(demo, folder)),
            Ask::Cut { cluster } => match relay.cut(cluster) {
                Ok(()) => done(format!("every packet from and to {cluster} is dropped")),
                Err(error) => Answer::Refused { message: error.to_string() },
            },
            Ask::Heal { cluster } => match relay.heal(cluster) {
                Ok(()) => done(format!("{cluster}'s packets pass again")),
                Err(error) => Answer::Refused { message: error.to_string() },
            },
            Ask::Down => done("the demo goes down".into()),
        };
        let _asker_gone = answer.send(reply);
        if ask == Ask::Down {
            return Ok(());
        }
    }
}

/// Starts this program again in the background and waits until it answers.
async fn detach(folder: &Path, printer: &Printer) -> Result<(), CommandError> {
    let failed =
        |what: &str, error: std::io::Error| CommandError::failed(format!("{what}: {error}"));
    create_private(folder).map_err(|error| failed("create the data folder", error))?;
    if control::ask(folder, &Ask::Status).await.is_ok() {
        return Err(already_running(folder));
    }
    let log_path = folder.join("demo.log");
    let log = std::fs::File::create(&log_path).map_err(|error| failed("create the log", error))?;
    let log_too = log.try_clone().map_err(|error| failed("open the log", error))?;
    let program = std::env::current_exe().map_err(|error| failed("find fedctl", error))?;
    let mut child = std::process::Command::new(program)
        .args(["demo", "up", "--in-background", "--data"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_too)
        .process_group(0)
        .spawn()
        .map_err(|error| failed("start the demo", error))?;
    let mut pace = tokio::time::interval(POLL);
    let ready = async {
        loop {
            pace.tick().await;
            if let Ok(Answer::Status(status)) = control::ask(folder, &Ask::Status).await {
                return Ok(status);
            }
            if let Ok(Some(status)) = child.try_wait() {
                let said = std::fs::read_to_string(&log_path).unwrap_or_default();
                let last = said.trim_end().lines().last().unwrap_or("nothing was said").to_string();
                return Err(CommandError::failed(format!("the demo ended with {status}: {last}"))
                    .hint(format!("its whole log is {}", log_path.display())));
            }
        }
    };
    let status = tokio::time::timeout(DETACH_TIMEOUT, ready).await.map_err(|_| {
        CommandError::new(Exit::TimedOut, "the demo was not ready within 60 s")
            .hint(format!("its log is {}", log_path.display()))
    })??;
    printer.talk("The demo runs in the background; `fedctl demo down` ends it.");
    printer.result(&status, status_table)
}

async fn tell(folder: &Path, ask: Ask, printer: &Printer) -> Result<(), CommandError> {
    let down = ask == Ask::Down;
    match control::ask(folder, &ask).await? {
        Answer::Done { message } => printer.talk(&message),
        other => return Err(unexpected(&other)),
    }
    let mut pace = tokio::time::interval(POLL);
    while down && control::socket_path(folder).exists() {
        pace.tick().await;
    }
    Ok(())
}

fn unexpected(answer: &Answer) -> CommandError {
    match answer {
        Answer::Refused { message } => CommandError::failed(message.clone()),
        other => CommandError::failed(format!("the demo answered {other:?}")),
    }
}

/// Empties the folder and takes its socket; refuses when a demo already runs there.
async fn claim(folder: &Path) -> Result<UnixListener, CommandError> {
    if control::ask(folder, &Ask::Status).await.is_ok() {
        return Err(already_running(folder));
    }
    let failed = |what: &str, error: std::io::Error| {
        CommandError::failed(format!("{what} {}: {error}", folder.display()))
            .hint("choose another folder with --data")
    };
    create_private(folder).map_err(|error| failed("create", error))?;
    if let Some(foreign) = CLUSTERS.into_iter().find(|cluster| is_foreign(folder, cluster)) {
        let path = folder.join(foreign);
        let message = format!("{} was not made by a demo, so it is not emptied", path.display());
        return Err(CommandError::failed(message)
            .hint("choose another folder with --data, or remove that one yourself"));
    }
    for cluster in CLUSTERS {
        match std::fs::remove_dir_all(folder.join(cluster)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("empty", error));
            }
            _ => {}
        }
    }
    let socket = control::socket_path(folder);
    let _stale = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(|error| failed("listen in", error))?;
    // Who can open the socket owns the demo: that must not hang on the umask.
    std::fs::set_permissions(&socket, Permissions::from_mode(0o600))
        .map_err(|error| failed("keep others out of", error))?;
    Ok(listener)
}

/// Whether the cluster's folder is there with something in it that no earlier demo wrote. People
/// keep manifests in folders of such names.
fn is_foreign(folder: &Path, cluster: &str) -> bool {
    let path = folder.join(cluster);
    let Ok(mut entries) = std::fs::read_dir(&path) else { return path.exists() };
    let config = std::fs::read_to_string(path.join("federation.yaml")).unwrap_or_default();
    let domain = format!("trustDomain: {}", trust_domain(cluster));
    entries.next().is_some() && !config.lines().any(|line| line == domain)
}

/// Only the demo's user may enter a folder that is new; one that is there is left as it is.
fn create_private(folder: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn already_running(folder: &Path) -> CommandError {
    CommandError::failed(format!("a demo already runs in {}", folder.display()))
        .hint("`fedctl demo down` ends it; --data DIR starts another one beside it")
}

fn data_folder(folder: DemoFolder) -> Result<PathBuf, CommandError> {
    let environment = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let path = folder.data.or_else(|| {
        let state = environment("XDG_STATE_HOME")
            .or_else(|| environment("HOME").map(|home| home.join(".local/state")));
        state.map(|state| state.join("fedgate/demo"))
    });
    let path = path.ok_or_else(|| {
        CommandError::usage("no folder for the demo: HOME is not set").hint("name one: --data DIR")
    })?;
    let path = std::path::absolute(&path)
        .map_err(|error| CommandError::usage(format!("--data {}: {error}", path.display())))?;
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let message = format!("{} is too long a path for Unix sockets", path.display());
        return Err(CommandError::usage(message)
            .hint(format!("name a folder of at most {SOCKET_PATH_BYTES_MAX} bytes: --data DIR")));
    }
    Ok(path)
}

fn demo_status(demo: &Demo, folder: &Path) -> DemoStatus {
    let clusters = demo.fleet.clusters().map(|cluster| {
        let mut addresses = BTreeMap::new();
        addresses.insert("http".to_string(), format!("{}:{HTTP_PORT}", cluster.address));
        for service in tcp_services(&cluster.name) {
            let address = format!("{}:{}", cluster.address, tcp_port(service));
            addresses.insert(format!("tcp/{service}"), address);
        }
        DemoCluster {
            name: cluster.name.clone(),
            addresses,
            tunnel_address: cluster.tunnel_address().to_string(),
            admin_address: cluster.admin_address().to_string(),
            operator_socket: cluster.operator_socket(),
            data_dir: cluster.folder.clone(),
        }
    });
    DemoStatus {
        api_version: "fedgate.dev/v1alpha1".into(),
        kind: "DemoStatus".into(),
        pid: std::process::id(),
        data_dir: folder.into(),
        clusters: clusters.collect(),
    }
}

fn status_table(status: &DemoStatus) -> String {
    let rows = status.clusters.iter().map(|cluster| {
        let addresses =
            cluster.addresses.iter().map(|(protocol, address)| format!("{protocol} {address}"));
        vec![
            cluster.name.clone(),
            addresses.collect::<Vec<_>>().join(", "),
            cluster.tunnel_address.clone(),
            cluster.admin_address.clone(),
            cluster.data_dir.display().to_string(),
        ]
    });
    table(&["CLUSTER", "ADDRESSES", "TUNNEL", "ADMIN", "DATA"], rows)
}

fn context_name(cluster: &str) -> String {
    format!("demo-{cluster}")
}

fn remember_contexts(demo: &Demo) -> Result<(), CommandError> {
    let path = contexts_path();
    let mut contexts = Contexts::load(&path)?;
    for cluster in demo.fleet.clusters() {
        let context = Context::OperatorSocket(cluster.operator_socket());
        contexts.contexts.insert(context_name(&cluster.name), context);
    }
    contexts.current.get_or_insert_with(|| context_name("east"));
    contexts.save(&path)
}

fn forget_contexts() -> Result<(), CommandError> {
    let path = contexts_path();
    let mut contexts = Contexts::load(&path)?;
    let ours = |name: &str| CLUSTERS.iter().any(|cluster| context_name(cluster) == name);
    contexts.contexts.retain(|name, _| !ours(name));
    if contexts.current.as_deref().is_some_and(ours) {
        contexts.current = None;
    }
    contexts.save(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_a_demo_made_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let east = folder.path().join("east");
        std::fs::create_dir(&east).unwrap();
        drop(claim(folder.path()).await.unwrap());
        assert!(!east.exists(), "an empty folder holds nothing of anybody's");

        std::fs::create_dir(&east).unwrap();
        std::fs::write(east.join("shop.yaml"), "a user's own").unwrap();
        let refused = claim(folder.path()).await.unwrap_err().to_string();
        assert!(refused.contains("east was not made by a demo, so it is not emptied"), "{refused}");
        assert!(east.join("shop.yaml").exists());

        let config = "cluster: east\ntrustDomain: east.demo.example\n";
        std::fs::write(east.join("federation.yaml"), config).unwrap();
        drop(claim(folder.path()).await.unwrap());
        assert!(!east.exists());
    }

    #[tokio::test]
    async fn the_folder_and_its_socket_are_for_one_user() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("demo");
        let _listener = claim(&folder).await.unwrap();
        for path in [folder.clone(), control::socket_path(&folder)] {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
    }
}
