//! The suites. To add one: a file with `pub(super) async fn run(run: &Run) -> Result<()>`, and a line
//! in the table.

mod chart;
mod claim;
mod clusters;
mod failover;
mod federated;
mod fence;
mod gitops;
mod guide;
mod join;
mod machines;
mod north_south;
mod outage;
mod roll;
mod rotation;
mod tokens;

use anyhow::{Result, bail};
use futures_util::future::LocalBoxFuture;

use crate::run::Run;

/// What is run on the clusters as a whole.
#[derive(Debug)]
pub struct Suite {
    pub name: &'static str,
    /// What it shows, in a few words.
    pub about: &'static str,
    /// Whether every submission must pass it.
    pub ci: bool,
    /// Whether it needs the three clusters; else it needs the engine only.
    pub clusters: bool,
    pub run: for<'a> fn(&'a Run) -> LocalBoxFuture<'a, Result<()>>,
}

/// In the order in which they run: what others stand on comes first.
pub const ALL: &[Suite] = &[
    Suite {
        name: "clusters",
        about: "three clusters work, reach each other's nodes and share nothing else",
        ci: true,
        clusters: true,
        run: |run| Box::pin(clusters::run(run)),
    },
    Suite {
        name: "join",
        about: "helm install, two tokens, and a request through three clusters",
        ci: true,
        clusters: true,
        run: |run| Box::pin(join::run(run)),
    },
    Suite {
        name: "north-south",
        about: "from outside through east's Gateway to services in west and south",
        ci: true,
        clusters: true,
        run: |run| Box::pin(north_south::run(run)),
    },
    Suite {
        name: "failover",
        about: "what breaks in one cluster is not noticed in another",
        ci: true,
        clusters: true,
        run: |run| Box::pin(failover::run(run)),
    },
    Suite {
        name: "tokens",
        about: "tokens that do not work, leaving and coming back, a name that is taken",
        ci: false,
        clusters: true,
        run: |run| Box::pin(tokens::run(run)),
    },
    Suite {
        name: "rotation",
        about: "certificates change many times while a stream stands",
        ci: false,
        clusters: true,
        run: |run| Box::pin(rotation::run(run)),
    },
    Suite {
        name: "claim",
        about: "two clusters want one name, or one service, at the same time",
        ci: false,
        clusters: true,
        run: |run| Box::pin(claim::run(run)),
    },
    Suite {
        name: "gitops",
        about: "everything by manifests: founding, joining and exporting",
        ci: false,
        clusters: true,
        run: |run| Box::pin(gitops::run(run)),
    },
    Suite {
        name: "outage",
        about: "an API server is away: traffic goes on, gateways restart, changes follow",
        ci: false,
        clusters: true,
        run: |run| Box::pin(outage::run(run)),
    },
    Suite {
        name: "roll",
        about: "everything is restarted in all clusters at once, under load",
        ci: false,
        clusters: true,
        run: |run| Box::pin(roll::run(run)),
    },
    Suite {
        name: "chart",
        about: "upgrade and rollback under traffic, helm test, and nothing left afterwards",
        ci: false,
        clusters: true,
        run: |run| Box::pin(chart::run(run)),
    },
    Suite {
        name: "guide",
        about: "every command of the guide to two kind clusters",
        ci: false,
        clusters: true,
        run: |run| Box::pin(guide::run(run)),
    },
    Suite {
        name: "machines",
        about: "the Debian package under systemd on three machines without Kubernetes",
        ci: false,
        clusters: false,
        run: |run| Box::pin(machines::run(run)),
    },
];

/// The suite of a name, those with `ci` for that name, all for none.
pub fn choose(name: Option<&str>) -> Result<Vec<&'static Suite>> {
    let chosen: Vec<_> = match name {
        None => ALL.iter().collect(),
        Some("ci") => ALL.iter().filter(|suite| suite.ci).collect(),
        Some(name) => ALL.iter().filter(|suite| suite.name == name).collect(),
    };
    if chosen.is_empty() {
        let names: Vec<&str> = ALL.iter().map(|suite| suite.name).collect();
        bail!(
            "there is no suite {}; the suites are: {}",
            name.unwrap_or_default(),
            names.join(", ")
        );
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_chosen_by_name() {
        assert_eq!(choose(None).unwrap().len(), ALL.len());
        assert_eq!(choose(Some("clusters")).unwrap()[0].name, "clusters");
        assert!(choose(Some("ci")).unwrap().iter().all(|suite| suite.ci));
        let error = choose(Some("clutsers")).unwrap_err().to_string();
        assert!(
            error.starts_with("there is no suite clutsers; the suites are: clusters"),
            "{error}"
        );
    }
}
