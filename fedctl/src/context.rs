//! Contexts: names for federation nodes, kept in one small file as kubeconfig keeps clusters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{CommandError, Exit};

const API_VERSION: &str = "fedgate.dev/v1alpha1";
const KIND: &str = "Contexts";

/// The file: which nodes there are, and which one is meant when none is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contexts {
    pub api_version: String,
    pub kind: String,
    pub current: Option<String>,
    pub contexts: BTreeMap<String, Context>,
}

/// The way to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Context {
    /// The Unix socket of the node's operator API.
    OperatorSocket(PathBuf),
    /// Through a cluster's API server.
    Kubernetes(KubernetesContext),
}

/// Which cluster, and where Fedgate is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubernetesContext {
    /// The kubeconfig's context; else its current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Where Fedgate runs; else where it is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl Default for Contexts {
    fn default() -> Self {
        Self {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            current: None,
            contexts: BTreeMap::new(),
        }
    }
}

impl Contexts {
    /// A missing file is an empty one.
    pub fn load(path: &Path) -> Result<Self, CommandError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(unreadable(path, &error.to_string())),
        };
        let contexts: Self =
            serde_saphyr::from_str(&text).map_err(|error| unreadable(path, &error.to_string()))?;
        if contexts.api_version != API_VERSION || contexts.kind != KIND {
            let found = format!("{} {}", contexts.api_version, contexts.kind);
            return Err(unreadable(path, &format!("it is a {found}, not a {API_VERSION} {KIND}")));
        }
        Ok(contexts)
    }

    pub fn save(&self, path: &Path) -> Result<(), CommandError> {
        let failed = |error: String| {
            CommandError::failed(format!("write {}: {error}", path.display()))
                .hint("set FEDCTL_CONTEXTS to a file that can be written")
        };
        let text = serde_saphyr::to_string(self).map_err(|error| failed(error.to_string()))?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        }
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, text).map_err(|error| failed(error.to_string()))?;
        std::fs::rename(&fresh, path).map_err(|error| failed(error.to_string()))
    }

    /// The context of that name, or the current one if there is any.
    pub fn choose(&self, name: Option<&str>) -> Result<Option<&Context>, CommandError> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        self.contexts.get(name).map(Some).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            CommandError::new(Exit::Usage, format!("there is no context {name:?}"))
                .hint(format!("known contexts: {}", or_none(&known.join(", "))))
        })
    }
}

/// `$FEDCTL_CONTEXTS`, else `fedgate/contexts.yaml` in the user's configuration folder.
pub fn contexts_path(environment: impl Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(path) = environment("FEDCTL_CONTEXTS") {
        return path.into();
    }
    let folder = environment("XDG_CONFIG_HOME").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(environment("HOME").unwrap_or_else(|| "/".into())).join(".config")
    });
    folder.join("fedgate/contexts.yaml")
}

/// `unix:PATH`, the only form of `--server` in this version.
pub fn parse_server(value: &str) -> Result<PathBuf, CommandError> {
    match value.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err(CommandError::usage(format!("--server {value:?} is not unix:PATH"))
            .hint("the path is `sockets.operator` in the federation node's configuration")),
    }
}

fn unreadable(path: &Path, why: &str) -> CommandError {
    CommandError::usage(format!("{}: {why}", path.display()))
        .hint("mend the file or remove it; `fedctl demo up` writes a new one")
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_survive_a_round_trip_and_choose_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/contexts.yaml");
        let mut contexts = Contexts::load(&path).unwrap();
        assert_eq!(contexts.choose(None).unwrap(), None);
        let east = Context::OperatorSocket("/run/east.sock".into());
        let cloud = KubernetesContext { context: Some("kind-west".into()), namespace: None };
        contexts.contexts.insert("demo-east".into(), east.clone());
        contexts.contexts.insert("cloud".into(), Context::Kubernetes(cloud));
        contexts.current = Some("demo-east".into());
        contexts.save(&path).unwrap();
        let again = Contexts::load(&path).unwrap();
        assert_eq!(again, contexts);
        assert_eq!(again.choose(None).unwrap(), Some(&east));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("operatorSocket: /run/east.sock"), "{text}");
        assert!(text.contains("kubernetes:\n      context: kind-west\n"), "{text}");
        let error = again.choose(Some("demo-west")).unwrap_err().to_string();
        assert!(error.contains("\"demo-west\"") && error.contains("demo-east"), "{error}");
    }

    #[test]
    fn a_bad_file_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.yaml");
        std::fs::write(&path, "apiVersion: fedgate.dev/v1alpha1\nkind: Contexts\nnope: 1\n")
            .unwrap();
        let error = Contexts::load(&path).unwrap_err().to_string();
        assert!(error.contains("contexts.yaml") && error.contains("nope"), "{error}");
        std::fs::write(&path, "apiVersion: v1\nkind: Config\ncontexts: {}\n").unwrap();
        let error = Contexts::load(&path).unwrap_err().to_string();
        assert!(error.contains("v1 Config"), "{error}");
    }

    #[test]
    fn servers_and_paths() {
        assert_eq!(parse_server("unix:/a/b").unwrap(), PathBuf::from("/a/b"));
        assert!(parse_server("tcp:1").unwrap_err().to_string().contains("unix:PATH"));
        let none = |_: &str| None;
        assert_eq!(contexts_path(none), PathBuf::from("/.config/fedgate/contexts.yaml"));
        let set = |name: &str| (name == "FEDCTL_CONTEXTS").then(|| "/x".to_string());
        assert_eq!(contexts_path(set), PathBuf::from("/x"));
    }
}
