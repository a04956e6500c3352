//! A member that leaves and joins again, time after time, while others go on.

use std::time::{Duration, Instant};

use crate::outside::Outside;
use crate::sites::{Distance, LIMIT};
use crate::{Sites, wait};

const EAST: usize = 0;
const WEST: usize = 1;
const NORTH: usize = 3;

/// East, west and south vote; north comes and goes. East calls a service of west's.
#[derive(Debug)]
pub struct Scene {
    pub sites: Sites,
}

impl Scene {
    pub fn start() -> anyhow::Result<Self> {
        let mut sites = Sites::start(&["east", "west", "south", "north"], Distance::NONE)?;
        sites.grant(EAST)?;
        sites.serve(WEST, "api")?;
        sites.export(WEST, "api", &["east"])?;
        sites.route(EAST, &["api"])?;
        sites.until_answer(EAST, "api", WEST);
        Ok(Self { sites })
    }

    pub fn calls(&self, clients: usize) -> Outside {
        Outside::start(&self.sites.target(EAST, "api"), clients)
    }

    /// North leaves, and comes back until `rounds` are done or `until` has come; how long each return
    /// took, the token included.
    pub fn run(&self, rounds: usize, until: Instant) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        while times.len() < rounds && Instant::now() < until {
            self.sites[NORTH].fedctl(&["leave", "--yes"])?;
            times.push(come_back(&self.sites, EAST, NORTH)?);
        }
        Ok(times)
    }

    /// The term of the three voters, who are who they were.
    pub fn term(&self) -> anyhow::Result<u64> {
        Ok(self.sites.settled()?.0)
    }
}

/// Who has left joins again, by a token of `inviter`; how long it took.
pub fn come_back(sites: &Sites, inviter: usize, member: usize) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let name = sites[member].spec.name.as_str();
    // The name is free when the inviter has read of the leave too.
    let issue = ["token", "issue", name, "--roles", "admit,export"];
    let token = wait::until_ok("a token", LIMIT, || sites[inviter].fedctl(&issue));
    sites[member].fedctl(&["join", token.trim()])?;
    Ok(begun.elapsed())
}
