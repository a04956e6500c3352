//! What happens to the path between clusters while an application in east calls a service that west and
//! south have, and another one that only west has.

use std::time::{Duration, Instant};

use wan::Impairment;

use crate::outside::Outside;
use crate::sites::{Distance, LIMIT};
use crate::{Sites, wait};

pub const EAST: usize = 0;
pub const WEST: usize = 1;
pub const SOUTH: usize = 2;

/// East, west and south, one federation.
#[derive(Debug)]
pub struct Scene {
    pub sites: Sites,
}

impl Scene {
    /// `api` is west's and south's, `only` is west's. West is nearer: it answers while it can.
    pub fn start() -> anyhow::Result<Self> {
        let mut sites = Sites::start(&["east", "west", "south"], Distance::NEAR)?;
        let far = Impairment::delayed(Duration::from_millis(8));
        sites.relay().set_both("east", "south", far.clone())?;
        sites.relay().set_both("south", "east", far)?;
        sites.grant(EAST)?;
        for (place, name) in [(WEST, "api"), (SOUTH, "api"), (WEST, "only")] {
            sites.serve(place, name)?;
            sites.export(place, name, &["east"])?;
        }
        sites.route(EAST, &["api", "only"])?;
        sites.until_answer(EAST, "only", WEST);
        let scene = Self { sites };
        scene.until_both_serve();
        scene.sites.until_answer(EAST, "api", WEST);
        Ok(scene)
    }

    /// Clients in east that call `api`; any cluster may answer.
    pub fn calls(&self, clients: usize) -> Outside {
        let outside = Outside::start(&self.sites.target(EAST, "api"), clients);
        outside.more(20);
        outside
    }

    /// East has a tunnel to each of the two that could answer.
    pub fn until_both_serve(&self) {
        self.until_links("east", &["south", "west"]);
    }

    /// Waits until a cluster's gateway has live tunnels to exactly these, in the order of the alphabet.
    pub fn until_links(&self, at: &str, wanted: &[&str]) -> Duration {
        let begun = Instant::now();
        let site = &self.sites[self.sites.place(at)];
        wait::until_ok(&format!("links of {at} to {wanted:?}"), LIMIT, || {
            let links = site.json(&["links"])?;
            let rows = links["items"].as_array().cloned().unwrap_or_default();
            let is_up = |cluster: &&str| {
                rows.iter().any(|row| row["cluster"] == **cluster && row["state"] == "Up")
            };
            let up: Vec<&str> =
                ["east", "south", "west"].into_iter().filter(|name| is_up(name)).collect();
            anyhow::ensure!(up == wanted, "{up:?}: {links}");
            Ok(())
        });
        begun.elapsed()
    }
}
