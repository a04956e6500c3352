//! Which sites and one-way paths are cut: one table, asked by the relay and the TUN router alike.

use std::collections::BTreeSet;

/// The cuts in force. Bounded by the sites that the owner knows: unknown names never get here.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    sites: BTreeSet<String>,
    paths: BTreeSet<(String, String)>,
}

impl Cuts {
    /// Whether a packet may not travel from `from` to `to`.
    pub(crate) fn is_cut(&self, from: &str, to: &str) -> bool {
        self.sites.contains(from)
            || self.sites.contains(to)
            || self.paths.contains(&(from.to_owned(), to.to_owned()))
    }

    pub(crate) fn set_site(&mut self, site: &str, cut: bool) {
        if cut {
            self.sites.insert(site.to_owned());
        } else {
            self.sites.remove(site);
        }
    }

    pub(crate) fn set_path(&mut self, from: &str, to: &str, cut: bool) {
        let path = (from.to_owned(), to.to_owned());
        if cut {
            self.paths.insert(path);
        } else {
            self.paths.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_cut_both_ways_and_a_path_one_way() {
        let mut cuts = Cuts::default();
        cuts.set_site("west", true);
        assert!(cuts.is_cut("west", "east") && cuts.is_cut("east", "west"));
        assert!(!cuts.is_cut("east", "south"));
        cuts.set_site("west", false);
        assert!(!cuts.is_cut("west", "east"));

        cuts.set_path("west", "east", true);
        assert!(cuts.is_cut("west", "east"));
        assert!(!cuts.is_cut("east", "west"));
        cuts.set_site("west", true);
        cuts.set_site("west", false);
        assert!(cuts.is_cut("west", "east"), "healing a site leaves a path's own cut");
    }
}
