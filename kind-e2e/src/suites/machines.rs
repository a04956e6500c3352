//! `docs/guide/three-machines.md` under a real systemd, and between its sections what an administrator
//! of such machines sees: units, journal, reloads, restarts under load, upgrades, removal.

mod page;
mod services;
mod under_load;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;

use super::federated::SOON;
use crate::debian::Debian;
use crate::run::{Run, until};

/// Of one block of the page.
const BLOCK_LIMIT: Duration = Duration::from_secs(180);
/// As applications call it.
const URL: &str = "http://web.shop.svc.clusterset.local/";
/// As they do where the name does not resolve.
const CALL: &str =
    "curl --silent --fail --max-time 5 -H 'Host: web.shop.svc.clusterset.local' http://127.0.0.1/";
const NODE: &str = "fedgate-federation.service";
const GATEWAY: &str = "fedgate-gateway.service";
const UNITS: [&str; 2] = [NODE, GATEWAY];

/// The machines, and what is carried to them.
struct World<'a> {
    run: &'a Run,
    east: Debian,
    west: Debian,
    south: Debian,
    /// The same programs in two versions.
    packages: [PathBuf; 2],
}

pub(super) async fn run(run: &Run) -> Result<()> {
    let world = run.step("three machines boot; a package and a later one", begin(run)).await?;
    let result = story(&world).await;
    if result.is_err() {
        world.keep_evidence().await?;
    }
    result
}

async fn begin(run: &Run) -> Result<World<'_>> {
    let packages = [run.machine.package("1.0~1").await?, run.machine.package("1.0~2").await?];
    let machines = Debian::start_all(&run.machine).await?;
    for machine in &machines {
        let machine = machine.clone();
        let what = format!("the machine {}", machine.name);
        run.afterwards(what, async move { machine.remove().await });
    }
    let testapp = run.machine.testapp(&run.images).await?;
    for machine in &machines {
        machine.receive(&testapp, "/usr/local/bin").await?;
        machine.receive(&packages[0], "/root").await?;
    }
    let [east, west, south] = machines;
    Ok(World { run, east, west, south, packages })
}

async fn story(world: &World<'_>) -> Result<()> {
    let run = world.run;
    world.follow("Make the package", &[]).await?;
    run.step("nothing runs that is not configured", services::none_runs(world)).await?;
    world.follow("Configure", &[]).await?;
    run.step("every unit is ready, and says so", services::ready(world)).await?;
    world.follow("Form a federation", &["founded.", "Joined"]).await?;
    world.follow("Export", &[]).await?;
    world.follow("Call", &["hello from west", "quic fast"]).await?;
    run.step("each daemon is behind its unit's walls", services::walls(world)).await?;
    run.step("the journal has levels, and JSON if asked", services::journal(world)).await?;
    world.follow("Change something", &["configuration read again"]).await?;
    run.step("a file is watched; a mistake in it changes nothing", services::file(world)).await?;
    run.step("a mistake at the start: status 2, and no other try", services::mistake(world))
        .await?;
    under_load::restarts(world).await?;
    run.step("a gateway that is stopped ends its download first", under_load::drain(world)).await?;
    under_load::kills(world).await?;
    run.step("what stands still is killed and started", services::standstill(world)).await?;
    under_load::reboot(world).await?;
    run.step("the rotated access log is written on", services::rotated(world)).await?;
    under_load::upgrade(world).await?;
    run.step("the same package again keeps everything", services::again(world)).await?;
    world.follow("Uninstall", &[]).await?;
    run.step("purge leaves what was written to /etc/fedgate", services::purged(world)).await?;
    run.step("remove keeps the cluster, and a new package finds it", services::removed(world)).await
}

impl World<'_> {
    fn machines(&self) -> [&Debian; 3] {
        [&self.east, &self.west, &self.south]
    }

    fn named(&self, name: &str) -> Result<&Debian> {
        let mut machines = self.machines().into_iter();
        machines.find(|machine| machine.name == name).with_context(|| format!("no machine {name}"))
    }

    /// Runs a section of the page as it stands; its commands have to print these signs.
    async fn follow(&self, heading: &str, signs: &[&str]) -> Result<()> {
        let work = async {
            let mut told = String::new();
            for block in page::section(heading)? {
                told += &self.follow_block(&block).await?;
            }
            for sign in signs {
                ensure!(told.contains(sign), "{sign} is missing: {told}");
            }
            Ok(())
        };
        self.run.step(format!("the guide: {heading}"), work).await
    }

    async fn follow_block(&self, block: &page::Block) -> Result<String> {
        let names: Vec<&str> = block.names("machine").collect();
        let all = try_join_all(names.into_iter().map(|name| async move {
            let machine = self.named(name)?;
            if let Some(file) = block.name("file") {
                machine.write(file, &block.text).await?;
                // As an editor of root's leaves it.
                return machine.run(&format!("chmod 644 {file}")).await;
            }
            for file in block.names("carry") {
                let text = self.east.exec(&["cat", file]).text().await?;
                machine.write(file, &text).await?;
            }
            if block.name("upgrade").is_some() {
                self.bring_later(machine).await?;
            }
            let call = machine.command(&block.text).timeout(BLOCK_LIMIT);
            call.text().await.with_context(|| name.to_owned())
        }));
        Ok(all.await?.concat())
    }

    /// In place of the package that is in the home folder.
    async fn bring_later(&self, machine: &Debian) -> Result<()> {
        machine.run("rm fedgate_*.deb").await?;
        machine.receive(&self.packages[1], "/root").await
    }

    /// Applications of a machine get west's answer.
    async fn answer(&self, machine: &Debian) -> Result<()> {
        let answer = machine.run(CALL).await?;
        ensure!(answer == "hello from west\n", "{answer}");
        Ok(())
    }

    async fn until_answer(&self, machine: &Debian) -> Result<()> {
        let what = format!("an answer in {}", machine.name);
        until(what, SOON, async || self.answer(machine).await).await
    }

    async fn keep_evidence(&self) -> Result<()> {
        let folder = self.run.machine.cache.join("failures/machines");
        tokio::fs::create_dir_all(&folder).await?;
        for machine in self.machines() {
            let text = machine.evidence().await?;
            tokio::fs::write(folder.join(format!("{}.log", machine.name)), text).await?;
        }
        self.run.note(format!("units and journals are in {}", folder.display()));
        Ok(())
    }
}
