//! From a change at the API server to the gateway that serves by it, through the real programs.
//!
//! A change counts as arrived when a request is answered by it. Asking the gateway's admin port
//! would cost more than what is measured.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use kube::Client;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::Cluster;
use crate::origin::{Connection, Origin};
use crate::programs::Programs;
use crate::{ENDPOINTS_PER_SERVICE, SERVICES, WRITERS, millis, say};

/// Services whose endpoints change one at a time.
const MEASURED: usize = 250;
/// Services with a route, whose endpoints change under load as well.
const CHURNED: usize = 250;
/// Services that are made, and routes that get another host.
const OTHERS: usize = 50;
/// Between two requests that look for a change: the figures' resolution.
const LOOK: Duration = Duration::from_millis(2);
/// Between two measured changes under load.
const PROBE: Duration = Duration::from_millis(200);
const ARRIVAL_LIMIT: Duration = Duration::from_secs(120);

/// The programs, running, and what they serve.
pub(crate) struct Way {
    cluster: Cluster,
    programs: Programs,
    origins: [Origin; 2],
    gateway: SocketAddr,
}

impl Way {
    /// Fills in routes and endpoints that answer, and starts both programs.
    pub(crate) async fn start(client: &Client) -> Result<Self> {
        let address = own_address()?;
        let origins = [Origin::start(address, "a").await?, Origin::start(address, "b").await?];
        let gateway = free_port(IpAddr::from([127, 0, 0, 1]))?;
        let cluster = Cluster::new(client);
        cluster.prepare(gateway.port()).await?;
        let [first, _] = &origins;
        stream::iter((0..MEASURED + CHURNED).map(anyhow::Ok))
            .try_for_each_concurrent(WRITERS, |number| cluster.serve(number, first.address))
            .await?;
        stream::iter((0..OTHERS).map(anyhow::Ok))
            .try_for_each_concurrent(WRITERS, |number| cluster.await_service(number, first.address))
            .await?;
        let begun = Instant::now();
        let programs = Programs::start(address)?;
        let way = Self { cluster, programs, origins, gateway };
        let last = format!("svc-{}.scale.test", MEASURED + CHURNED - 1);
        way.until(&last, "a").await?;
        say(format!(
            "start of both programs to the first answer: {:.2} s, {SERVICES} Services, {} endpoints",
            begun.elapsed().as_secs_f64(),
            SERVICES * ENDPOINTS_PER_SERVICE
        ));
        way.programs.tell_memory("after the start")?;
        Ok(way)
    }

    /// One change after the other.
    pub(crate) async fn measure(&self) -> Result<()> {
        let [_, second] = &self.origins;
        let before = self.programs.cpu()?;
        let mut times = Vec::new();
        for number in 0..MEASURED {
            let begun = Instant::now();
            self.cluster.point(number, second.address.port()).await?;
            self.until(&format!("svc-{number}.scale.test"), "b").await?;
            times.push(begun.elapsed());
        }
        tell("an EndpointSlice's change to the gateway", &mut times);
        let now = self.programs.cpu()?;
        let used = used_since(&before, &now);
        let each =
            used.map(|(name, used)| format!("{name} {:.1} ms", millis(used) / MEASURED as f64));
        say(format!("CPU for each of these: {}", each.collect::<Vec<_>>().join(", ")));
        let mut times = Vec::new();
        for number in 0..OTHERS {
            let begun = Instant::now();
            self.cluster.create_awaited(number).await?;
            self.until(&format!("late-{number}.scale.test"), "a").await?;
            times.push(begun.elapsed());
        }
        tell("a new Service to the gateway", &mut times);
        let mut times = Vec::new();
        for number in 0..OTHERS {
            let host = format!("moved-{number}.scale.test");
            let begun = Instant::now();
            self.cluster.rename_route(number, &host).await?;
            self.until(&host, "b").await?;
            times.push(begun.elapsed());
        }
        tell("an HTTPRoute's change to the gateway", &mut times);
        self.programs.tell_memory("after the changes")
    }

    /// Endpoints of all Services but the measured ones change all the time; these are measured.
    pub(crate) async fn churn(&self, rate: u32, seconds: u64) -> Result<()> {
        let before = self.programs.cpu()?;
        let begun = Instant::now();
        let duration = Duration::from_secs(seconds);
        let written = Mutex::new(Written::default());
        let (probed, loaded) =
            tokio::join!(self.probe(begun + duration), self.load(rate, begun + duration, &written));
        let (elapsed, after) = (begun.elapsed(), self.programs.cpu()?);
        loaded?;
        tell("an EndpointSlice's change under this load", &mut probed?);
        let written = written.into_inner();
        let shares = used_since(&before, &after).map(|(name, used)| {
            format!("{name} {:.2} cores", used.as_secs_f64() / elapsed.as_secs_f64())
        });
        say(format!(
            "churn: {} changes in {:.1} s, {:.0}/s of {rate}/s asked; {}",
            written.count,
            elapsed.as_secs_f64(),
            written.count as f64 / elapsed.as_secs_f64(),
            shares.collect::<Vec<_>>().join(", ")
        ));
        let settled = Instant::now();
        for (number, port) in &written.last {
            let wanted = self.origins.iter().find(|origin| origin.address.port() == *port);
            let wanted = wanted.context("a port of an origin")?;
            self.until(&format!("svc-{number}.scale.test"), wanted.name).await?;
        }
        say(format!(
            "every one of {} Services with a route is served by its last state; seen within {:.0} ms",
            written.last.len(),
            millis(settled.elapsed())
        ));
        self.programs.tell_memory("after the churn")
    }

    async fn probe(&self, end: Instant) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        let mut pace = interval(PROBE);
        while Instant::now() < end {
            pace.tick().await;
            let number = times.len() % MEASURED;
            // What `measure` left at the second origin goes to the first, and back again.
            let origin = &self.origins[(times.len() / MEASURED) % 2];
            let host = match number {
                number if number < OTHERS => format!("moved-{number}.scale.test"),
                number => format!("svc-{number}.scale.test"),
            };
            let begun = Instant::now();
            self.cluster.point(number, origin.address.port()).await?;
            self.until(&host, origin.name).await?;
            times.push(begun.elapsed());
        }
        Ok(times)
    }

    async fn load(&self, rate: u32, end: Instant, written: &Mutex<Written>) -> Result<()> {
        let mut pace = interval(Duration::from_secs(1) / rate);
        // Who falls behind does not catch up in a burst.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let changes = stream::unfold((pace, 0_usize), |(mut pace, count)| async move {
            pace.tick().await;
            (Instant::now() < end).then_some((count, (pace, count + 1)))
        });
        let rest = SERVICES - MEASURED;
        let change = |count: usize| async move {
            let number = MEASURED + count % rest;
            let port = self.origins[1 - (count / rest) % 2].address.port();
            self.cluster.point(number, port).await?;
            let mut written = written.lock().await;
            written.count += 1;
            if number < MEASURED + CHURNED {
                written.last.insert(number, port);
            }
            anyhow::Ok(())
        };
        changes.map(anyhow::Ok).try_for_each_concurrent(WRITERS, change).await
    }

    /// Asks until the origin of this name answers.
    async fn until(&self, host: &str, name: &str) -> Result<()> {
        let mut pace = interval(LOOK);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begun = Instant::now();
        let mut connection = None;
        loop {
            pace.tick().await;
            self.programs.check()?;
            let answer = Connection::ask(&mut connection, self.gateway, host).await;
            if answer.as_deref().ok() == Some(name) {
                return Ok(());
            }
            if begun.elapsed() > ARRIVAL_LIMIT {
                bail!("{host} is not served by {name}: {answer:?}");
            }
        }
    }
}

/// What the load did.
#[derive(Default)]
struct Written {
    count: usize,
    /// The last port of each Service that has a route.
    last: BTreeMap<usize, u16>,
}

/// An address of this host that an EndpointSlice may have: Kubernetes refuses loopback.
fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("198.51.100.1:9").context("this host has no address but loopback")?;
    let address = socket.local_addr()?.ip();
    ensure!(!address.is_loopback(), "this host has no address but loopback");
    Ok(address)
}

fn free_port(address: IpAddr) -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind((address, 0))?.local_addr()?)
}

type Cpu = (&'static str, Duration);

fn used_since(before: &[Cpu], now: &[Cpu]) -> impl Iterator<Item = Cpu> {
    before.iter().zip(now).map(|((name, before), (_, now))| (*name, *now - *before))
}

fn tell(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).map_or(0.0, |time| millis(*time));
    let max = times.last().map_or(0.0, |time| millis(*time));
    say(format!(
        "{what}: p50 {:.0} ms, p99 {:.0} ms, max {max:.0} ms of {}",
        at(50),
        at(99),
        times.len()
    ));
}
