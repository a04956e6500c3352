//! The file, with the rules for values that only a federation node has.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use daemon::ConfigSource;

use super::{ConfigError, Text};
use crate::limits::SOCKET_PATH_BYTES_MAX;

/// The file, for messages that point into it.
pub(super) struct Source<'a>(ConfigSource<'a>);

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str, path: &'a Path) -> Self {
        Self(ConfigSource { text, path })
    }

    pub(super) fn socket(&self, field: &str, value: &Text) -> Result<PathBuf, ConfigError> {
        let path = self.path(field, value)?;
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(self.refuse(field, value, too_long(&path, field)));
        }
        Ok(path)
    }

    pub(super) fn default_socket(
        &self,
        field: &str,
        data_dir: &Text,
        folder: &Path,
        name: &str,
    ) -> Result<PathBuf, ConfigError> {
        let path = folder.join("run").join(name);
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(self.refuse("dataDir", data_dir, too_long(&path, field)));
        }
        Ok(path)
    }
}

impl<'a> Deref for Source<'a> {
    type Target = ConfigSource<'a>;

    fn deref(&self) -> &ConfigSource<'a> {
        &self.0
    }
}

fn too_long(path: &Path, field: &str) -> String {
    format!(
        "the socket's path {} has {} bytes, and Unix allows {SOCKET_PATH_BYTES_MAX}; set {field} \
         to a shorter one",
        path.display(),
        path.as_os_str().len()
    )
}
