//! The sites there are and what is cut between them: asked by the relay and the TUN router alike.

use std::collections::BTreeSet;

use crate::SettingError;
use crate::limits::SITE_NAME_BYTES_MAX;

/// The known sites, and the cuts in force among them.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    known: BTreeSet<String>,
    cut: BTreeSet<String>,
    cut_paths: BTreeSet<(String, String)>,
}

impl Sites {
    pub(crate) fn new(known: impl IntoIterator<Item = String>) -> Self {
        Self { known: known.into_iter().collect(), ..Self::default() }
    }

    /// Whether a packet may not travel from `from` to `to`.
    pub(crate) fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cut.contains(from)
            || self.cut.contains(to)
            || self.cut_paths.contains(&(from.to_owned(), to.to_owned()))
    }

    /// Cuts or heals everything from and to a site.
    pub(crate) fn set_cut(&mut self, site: &str, cut: bool) -> Result<(), SettingError> {
        self.check_known("site", site)?;
        if cut {
            self.cut.insert(site.to_owned());
        } else {
            self.cut.remove(site);
        }
        Ok(())
    }

    /// Cuts or heals one direction between two sites.
    pub(crate) fn set_path_cut(
        &mut self,
        from: &str,
        to: &str,
        cut: bool,
    ) -> Result<(), SettingError> {
        self.check_known("from", from)?;
        self.check_known("to", to)?;
        let path = (from.to_owned(), to.to_owned());
        if cut {
            self.cut_paths.insert(path);
        } else {
            self.cut_paths.remove(&path);
        }
        Ok(())
    }

    /// Names the sites there are if this is none of them.
    pub(crate) fn check_known(&self, field: &str, site: &str) -> Result<(), SettingError> {
        if self.known.contains(site) {
            return Ok(());
        }
        let known = self.known.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        Err(SettingError::new(field, site, format!("there is no such site; use one of {known}")))
    }
}

/// A site's name as the configuration gives it.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), SettingError> {
    if name.is_empty() || name.len() > SITE_NAME_BYTES_MAX {
        return Err(SettingError::new(
            field,
            format!("{name:?}"),
            format!("must be a site's name of 1 to {SITE_NAME_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_cut_both_ways_and_a_path_one_way() {
        let mut sites = Sites::new(["east", "south", "west"].map(str::to_owned));
        sites.set_cut("west", true).unwrap();
        assert!(sites.is_cut("west", "east") && sites.is_cut("east", "west"));
        assert!(!sites.is_cut("east", "south"));
        sites.set_cut("west", false).unwrap();
        assert!(!sites.is_cut("west", "east"));

        sites.set_path_cut("west", "east", true).unwrap();
        assert!(sites.is_cut("west", "east"));
        assert!(!sites.is_cut("east", "west"));
        sites.set_cut("west", true).unwrap();
        sites.set_cut("west", false).unwrap();
        assert!(sites.is_cut("west", "east"), "healing a site leaves a path's own cut");
    }

    #[test]
    fn an_unknown_site_changes_nothing_and_is_told_the_known_ones() {
        let mut sites = Sites::new(["east", "west"].map(str::to_owned));
        for (error, field) in [
            (sites.set_cut("wets", true).unwrap_err(), "site"),
            (sites.set_path_cut("wets", "east", true).unwrap_err(), "from"),
            (sites.set_path_cut("east", "wets", true).unwrap_err(), "to"),
        ] {
            let text = format!("{field} = wets: there is no such site; use one of east, west");
            assert_eq!(error.to_string(), text);
        }
        assert!(!sites.is_cut("east", "wets"));
    }
}
