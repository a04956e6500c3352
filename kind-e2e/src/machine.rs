//! The machine that the clusters run on: where the scripts, the tools and our programs are.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;

use crate::command::Command;
use crate::limits::{DOWN_TIMEOUT, EARLIER_TIMEOUT, IMAGES_TIMEOUT, PACKAGE_TIMEOUT, UP_TIMEOUT};
use crate::report;

/// The clusters' names, as `scripts/cluster.sh` knows them.
pub const CLUSTERS: [&str; 3] = ["east", "west", "south"];

/// Where things are. `scripts/paths.sh` says it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Of kubectl, helm and kind; empty if they are the machine's own.
    tools: PathBuf,
    /// Of kubeconfigs and logs.
    pub cache: PathBuf,
    /// Empty for the default of the docker command.
    docker_host: String,
    /// The Docker network of the nodes.
    pub network: String,
    /// Of fedctl and the other programs.
    programs: PathBuf,
}

/// Our images, by the names that clusters know them by.
#[derive(Clone, Debug)]
pub struct Images {
    /// fedgate-federation, fedgate-gateway and fedctl.
    pub fedgate: String,
    /// The test application.
    pub testapp: String,
}

/// An earlier commit, to be upgraded from.
#[derive(Clone, Debug)]
pub struct Earlier {
    pub revision: String,
    /// With its programs.
    pub image: String,
    /// Its files.
    pub tree: PathBuf,
}

/// The right to use the clusters, of which a machine has one set. Held until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits for a run that uses them.
    pub async fn take() -> Result<Self> {
        let path = value(&script("paths.sh").text().await?, "LOCK")?.to_owned();
        let file = File::create(&path).with_context(|| format!("could not open {path}"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                report::aside("another run uses the clusters; waiting for it");
                file.lock().with_context(|| format!("could not lock {path}"))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).context(format!("could not lock {path}"));
            }
        }
        Ok(Self { _lock: file })
    }
}

impl Machine {
    /// Starts an engine where none answers, and makes the clusters that are not there. Nothing that is
    /// there already is made again.
    pub async fn up(programs: &Path, clusters: &[&str]) -> Result<Self> {
        script("engine.sh").args(["up"]).timeout(UP_TIMEOUT).with_progress().text().await?;
        let clusters = clusters.iter().map(|name| {
            script("cluster.sh").args(["up", name]).timeout(UP_TIMEOUT).with_progress().text()
        });
        try_join_all(clusters).await?;
        Self::find(programs).await
    }

    /// Removes the clusters, and an engine that [`Self::up`] started.
    pub async fn down() -> Result<()> {
        script("down.sh").timeout(DOWN_TIMEOUT).with_progress().text().await.map(drop)
    }

    /// Asks where things are.
    pub async fn find(programs: &Path) -> Result<Self> {
        let paths = script("paths.sh").text().await?;
        Ok(Self {
            tools: value(&paths, "TOOLS")?.into(),
            cache: value(&paths, "CACHE")?.into(),
            docker_host: value(&paths, "DOCKER_HOST")?.to_owned(),
            network: value(&paths, "NETWORK")?.to_owned(),
            programs: programs.to_owned(),
        })
    }

    /// Makes our images of the programs as they are built now, and loads them into these clusters.
    pub async fn images(&self, clusters: &[&str]) -> Result<Images> {
        let call = script("images.sh").args([&self.programs]).args(clusters);
        let lines = call.timeout(IMAGES_TIMEOUT).with_progress().text().await?;
        Ok(Images {
            fedgate: value(&lines, "FEDGATE")?.to_owned(),
            testapp: value(&lines, "TESTAPP")?.to_owned(),
        })
    }

    /// Makes the image of a machine without Kubernetes, if it is not there, and returns its name.
    pub async fn machine_image(&self, limit: Duration) -> Result<String> {
        let call = script("machine-image.sh").timeout(limit).with_progress();
        Ok(value(&call.text().await?, "IMAGE")?.to_owned())
    }

    /// Makes the Debian package of our programs, of that version, without packing it well, and returns
    /// its path.
    pub async fn package(&self, version: &str) -> Result<PathBuf> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/deb.sh");
        let folder = self.cache.join("packages");
        let call = Command::new(script).args([&self.programs, &folder]).args([version]);
        let call = call.env("DEB_COMPRESSION", "none").timeout(PACKAGE_TIMEOUT);
        Ok(call.text().await?.trim().into())
    }

    /// Takes the test application out of its image, for machines without Kubernetes.
    pub async fn testapp(&self, images: &Images) -> Result<PathBuf> {
        let target = self.cache.join("packages/testapp");
        let container = "fedgate-machine-testapp";
        let remove = || self.docker().args(["rm", "--force", container]).output();
        remove().await?;
        let create = self.docker().args(["create", "--name", container, &images.testapp]);
        create.text().await?;
        let copy = self.docker().args(["cp", "--quiet", &format!("{container}:/testapp")]);
        copy.args([&target]).text().await?;
        remove().await?;
        Ok(target)
    }

    /// Builds the programs of the commit before, or of `FEDGATE_UPGRADE_FROM`, and loads an image of
    /// them beside ours.
    pub async fn earlier(&self, clusters: &[&str]) -> Result<Earlier> {
        let built = script("earlier.sh").timeout(EARLIER_TIMEOUT).with_progress().text().await?;
        let programs = value(&built, "PROGRAMS")?;
        let call = script("images.sh").args(["--beside", programs]).args(clusters);
        let lines = call.timeout(IMAGES_TIMEOUT).with_progress().text().await?;
        Ok(Earlier {
            revision: value(&built, "REVISION")?.to_owned(),
            image: value(&lines, "FEDGATE")?.to_owned(),
            tree: value(&built, "TREE")?.into(),
        })
    }

    /// What a shell has to `eval` to be where suites are: kubeconfigs with a context `kind-NAME` for
    /// each cluster, tools and programs on the path, and our images, for `kubectl` and as values for
    /// our chart.
    pub fn shell(&self, clusters: &[&str], images: &Images) -> Result<String> {
        let values = self.cache.join("values.yaml");
        let (repository, tag) = images.fedgate.rsplit_once(':').context("an image has a tag")?;
        let text =
            format!("image: {{repository: {repository}, tag: \"{tag}\", pullPolicy: Never}}\n");
        fs::write(&values, text)
            .with_context(|| format!("could not write {}", values.display()))?;
        let kubeconfigs = clusters.iter().map(|name| self.cache.join("kubeconfig").join(name));
        let kubeconfigs = std::env::join_paths(kubeconfigs)?;
        let mut path = vec![self.programs.display().to_string()];
        if !self.tools.as_os_str().is_empty() {
            path.push(self.tools.display().to_string());
        }
        let mut lines = vec![
            format!("export PATH={}:\"$PATH\"", quoted(&path.join(":"))),
            format!("export KUBECONFIG={}", quoted(&kubeconfigs.to_string_lossy())),
            format!("export FEDGATE_VALUES={}", quoted(&values.display().to_string())),
            format!("export TESTAPP={}", quoted(&images.testapp)),
        ];
        if !self.docker_host.is_empty() {
            lines.push(format!("export DOCKER_HOST={}", quoted(&self.docker_host)));
        }
        Ok(lines.join("\n"))
    }

    /// A call of kubectl, helm or kind.
    pub fn tool(&self, name: &str) -> Command {
        self.with_engine(Command::new(self.tools.join(name)))
    }

    /// A call of docker.
    pub fn docker(&self) -> Command {
        self.with_engine(Command::new("docker"))
    }

    /// A call of one of our programs on this machine, such as fedctl.
    pub fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }

    fn with_engine(&self, command: Command) -> Command {
        if self.docker_host.is_empty() {
            command
        } else {
            command.env("DOCKER_HOST", &self.docker_host)
        }
    }
}

/// As one word of a shell's command line.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A call of a script of this folder.
fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name))
}

/// The value of a line `NAME=VALUE`.
fn value<'a>(lines: &'a str, name: &str) -> Result<&'a str> {
    let found = lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.with_context(|| format!("a script did not print {name}; it printed: {lines}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_finds_clusters_tools_and_images() {
        let folder = std::env::temp_dir().join(format!("fedgate's-shell-{}", std::process::id()));
        let machine = Machine {
            tools: "/tools".into(),
            cache: folder.clone(),
            docker_host: "unix:///engine".into(),
            network: String::new(),
            programs: "/programs".into(),
        };
        fs::create_dir(&machine.cache).unwrap();
        let images = Images { fedgate: "fedgate:12e4".into(), testapp: "testapp:7".into() };
        let shell = machine.shell(&["east", "west"], &images).unwrap();
        let told = r#"printf '%s|' "$PATH" "$KUBECONFIG" "$TESTAPP" "$DOCKER_HOST""#;
        let told = std::process::Command::new("/bin/sh")
            .args(["-c", &format!("{shell}\n{told}")])
            .env("PATH", "/rest")
            .output()
            .unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let kube = folder.join("kubeconfig").display().to_string();
        assert_eq!(
            told,
            format!("/programs:/tools:/rest|{kube}/east:{kube}/west|testapp:7|unix:///engine|")
        );
        let values = fs::read_to_string(machine.cache.join("values.yaml")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(values, "image: {repository: fedgate, tag: \"12e4\", pullPolicy: Never}\n");
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        let lines = "TOOLS_OLD=no\nTOOLS=\nCACHE=/some/where=else\n";
        assert_eq!(value(lines, "TOOLS").unwrap(), "");
        assert_eq!(value(lines, "CACHE").unwrap(), "/some/where=else");
        assert!(value(lines, "NETWORK").unwrap_err().to_string().contains("did not print NETWORK"));
    }
}
