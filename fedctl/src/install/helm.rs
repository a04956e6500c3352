//! Helm as a program: what it is told, and what to say when it fails.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use model::code;

use crate::error::CommandError;

/// Where the repository has the chart.
const CHART_DEFAULT: &str = "helm/fedgate";
const CRDS: &str = "fedgate-crds";

/// The two charts, which lie beside each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charts {
    pub fedgate: PathBuf,
    pub crds: PathBuf,
}

impl Charts {
    pub fn find(wanted: Option<&Path>) -> Result<Self, CommandError> {
        let fedgate = wanted.unwrap_or_else(|| Path::new(CHART_DEFAULT)).to_path_buf();
        let crds = fedgate.parent().unwrap_or_else(|| Path::new("")).join(CRDS);
        for chart in [&fedgate, &crds] {
            if !chart.join("Chart.yaml").is_file() {
                let message = format!("{} is no Helm chart", chart.display());
                return Err(CommandError::usage(message).hint(
                    "--chart PATH names the folder helm/fedgate of the repository, beside which fedgate-crds lies",
                ));
            }
        }
        Ok(Self { fedgate, crds })
    }
}

/// Which release, of which cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helm {
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context.
    pub context: Option<String>,
    pub namespace: String,
    pub release: String,
}

/// What an installation is made of, besides the chosen values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub values: Vec<PathBuf>,
    pub set: Vec<String>,
    pub dry_run: bool,
    pub wait: Option<Duration>,
}

impl Helm {
    /// Installs or upgrades both charts. `chosen` is read before `wanted`, so a person's values win.
    pub fn install(
        &self,
        charts: &Charts,
        chosen: &str,
        wanted: &Wanted,
    ) -> Result<(), CommandError> {
        let crds = Wanted { values: Vec::new(), set: Vec::new(), ..wanted.clone() };
        run(&self.upgrade(CRDS, &charts.crds, &crds, false), None)?;
        run(&self.upgrade(&self.release, &charts.fedgate, wanted, true), Some(chosen))
    }

    /// Also fine when there is nothing to remove.
    pub fn uninstall(&self, release: &str) -> Result<(), CommandError> {
        let mut arguments: Vec<String> =
            ["uninstall", release, "--ignore-not-found", "--wait"].map(str::to_owned).to_vec();
        arguments.extend(self.place());
        run(&arguments, None)
    }

    pub fn crds_release() -> &'static str {
        CRDS
    }

    fn upgrade(&self, release: &str, chart: &Path, wanted: &Wanted, values: bool) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["upgrade", "--install", release].map(str::to_owned).to_vec();
        arguments.push(chart.display().to_string());
        arguments.extend(self.place());
        arguments.push("--create-namespace".into());
        if values {
            arguments.extend(["--values", "-"].map(str::to_owned));
        }
        for file in &wanted.values {
            arguments.extend(["--values".into(), file.display().to_string()]);
        }
        for value in &wanted.set {
            arguments.extend(["--set".into(), value.clone()]);
        }
        if wanted.dry_run {
            arguments.push("--dry-run=server".into());
        }
        if let Some(time) = wanted.wait {
            arguments.extend(["--wait".into(), "--timeout".into(), format!("{}s", time.as_secs())]);
        }
        arguments
    }

    fn place(&self) -> Vec<String> {
        let mut arguments = vec!["--namespace".to_owned(), self.namespace.clone()];
        if let Some(file) = &self.kubeconfig {
            arguments.extend(["--kubeconfig".into(), file.display().to_string()]);
        }
        if let Some(context) = &self.context {
            arguments.extend(["--kube-context".into(), context.clone()]);
        }
        arguments
    }
}

/// Helm's own words go where ours go; only that it failed is told here.
fn run(arguments: &[String], input: Option<&str>) -> Result<(), CommandError> {
    let shown = format!("helm {}", arguments.join(" "));
    let failed = |why: String| CommandError::failed(why).code(code::HELM_FAILED);
    let started = Command::new("helm").args(arguments).stdin(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed("there is no helm on the PATH".into()).hint(
            "install Helm 3.14 or newer; or take the values of --print-values to where one is",
        ),
        _ => failed(format!("start helm: {error}")),
    })?;
    if let Some(mut pipe) = child.stdin.take() {
        // A helm that does not read its input says so by how it ends.
        let _unread = pipe.write_all(input.unwrap_or_default().as_bytes());
    }
    let ended = child.wait().map_err(|error| failed(format!("wait for helm: {error}")))?;
    match ended.success() {
        true => Ok(()),
        false => Err(failed(format!("`{shown}` ended with {ended}"))
            .hint("helm says why above; what it has done, the same command does not do twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helm() -> Helm {
        Helm {
            kubeconfig: None,
            context: Some("kind-east".into()),
            namespace: "fedgate-system".into(),
            release: "fedgate".into(),
        }
    }

    #[test]
    fn helm_is_told_everything_that_a_person_said() {
        let wanted = Wanted {
            values: vec!["mine.yaml".into()],
            set: vec!["image.tag=x".into()],
            dry_run: false,
            wait: Some(Duration::from_secs(300)),
        };
        assert_eq!(
            helm().upgrade("fedgate", Path::new("helm/fedgate"), &wanted, true).join(" "),
            "upgrade --install fedgate helm/fedgate --namespace fedgate-system --kube-context kind-east \
             --create-namespace --values - --values mine.yaml --set image.tag=x --wait --timeout 300s"
        );
        let dry = Wanted { dry_run: true, ..Wanted::default() };
        let dry = helm().upgrade(CRDS, Path::new("c"), &dry, false).join(" ");
        assert!(dry.ends_with("--create-namespace --dry-run=server"), "{dry}");
    }

    #[test]
    fn a_folder_that_is_no_chart_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Charts::find(Some(&folder.path().join("fedgate"))).unwrap_err().to_string();
        assert!(error.contains("/fedgate is no Helm chart\nhint: --chart PATH names"), "{error}");
        for chart in ["fedgate", CRDS] {
            std::fs::create_dir(folder.path().join(chart)).unwrap();
            std::fs::write(folder.path().join(chart).join("Chart.yaml"), "").unwrap();
        }
        let charts = Charts::find(Some(&folder.path().join("fedgate"))).unwrap();
        assert_eq!(charts.crds, folder.path().join(CRDS));
    }
}
