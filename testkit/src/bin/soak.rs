//! `make soak`: the long versions of what the tests do for seconds, in named pieces of at most 2.5 h. Each
//! adds a line of figures to `docs/reference/soak.md`.
//!
//! usage: soak PIECE [SECONDS [COUNT]]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use testkit::outside::{Ledger, Outside};
use testkit::prometheus::Page;
use testkit::rss::{self, Growth};
use testkit::scenes::{joins, leaders, path, rolling};
use testkit::sites::LIMIT;
use testkit::{Sites, client, wait};
use wan::Impairment;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/soak.md");
const SECONDS_MAX: u64 = 9_000;
const REQUESTS: u64 = 1_000_000;
const REQUESTS_PER_LOOK: u64 = 2_000;
const DEATHS: u64 = 200;
const JOINS_PER_LOOK: usize = 10;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Leaders that die in one federation: the store remembers so many tokens of the ledger, no more.
const DEATHS_PER_FEDERATION: usize = 25;

const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

/// When a piece ends: by the clock, or when it has done so much, if that is what it counts.
#[derive(Clone, Copy)]
struct End {
    until: Instant,
    count: Option<u64>,
}

/// A piece, how long it may take, and what it does.
type Piece = (&'static str, u64, fn(End) -> anyhow::Result<Done>);

const PIECES: [Piece; 6] = [
    ("rolling", SECONDS_MAX, rolling_restarts),
    ("leaders", SECONDS_MAX, deaths),
    ("cut", 3_900, a_long_cut),
    ("loss", 600, false_alarms),
    ("joins", 600, comings_and_goings),
    ("steady", SECONDS_MAX, steady),
];

/// What a piece has seen.
struct Done {
    what: String,
    seen: Ledger,
    memory: Memory,
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = PIECES.iter().map(|(name, ..)| *name).collect();
    let [wanted, numbers @ ..] = &words[..] else {
        bail!("name a piece: all, {}", names.join(", "));
    };
    let number = |at: usize, what: &'static str| {
        numbers.get(at).map(|word| word.parse::<u64>().context(what)).transpose()
    };
    let (seconds, count) = (number(0, "SECONDS")?, number(1, "COUNT")?);
    ensure!(numbers.len() <= 2 && count != Some(0), "usage: soak PIECE [SECONDS [COUNT]]");
    let chosen = PIECES.iter().filter(|(name, ..)| wanted == "all" || *wanted == *name);
    let chosen: Vec<&Piece> = chosen.collect();
    ensure!(!chosen.is_empty(), "{wanted}: there are the pieces all, {}", names.join(", "));
    for (name, most, run) in chosen {
        let seconds = seconds.unwrap_or(*most).min(SECONDS_MAX);
        let begun = Instant::now();
        let done = run(End { until: begun + Duration::from_secs(seconds), count })?;
        let line = row(name, begun.elapsed(), &done);
        print(&line)?;
        append(Path::new(PAGE), &line)?;
    }
    Ok(())
}

/// One line of the page's table.
fn row(name: &str, took: Duration, done: &Done) -> String {
    let (seen, minutes) = (&done.seen, took.as_secs_f64() / 60.0);
    let failures = seen.failures();
    format!(
        "| {name}, {BUILD} | {minutes:.1} min | {} | {} | {failures} | {} ms | {} |\n",
        done.what,
        seen.requests,
        seen.longest.as_millis(),
        done.memory.told()
    )
}

fn print(line: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(line.as_bytes())?)
}

fn append(page: &Path, line: &str) -> anyhow::Result<()> {
    let page = File::options().append(true).open(page).context("open the page of figures")?;
    Ok({ page }.write_all(line.as_bytes())?)
}

/// Memory of some processes over time.
#[derive(Default)]
struct Memory(Vec<(String, Growth)>);

impl Memory {
    fn look(&mut self, at: Duration, processes: Vec<(String, u32)>) {
        for (name, id) in processes {
            let Some(kib) = rss::resident_kib(id) else { continue };
            match self.0.iter_mut().find(|(known, _)| *known == name) {
                Some((_, growth)) => growth.note(at, kib),
                None => {
                    let mut growth = Growth::default();
                    growth.note(at, kib);
                    self.0.push((name, growth));
                }
            }
        }
    }

    fn told(&self) -> String {
        let one = |(name, growth): &(String, Growth)| {
            let slope = growth.percent_per_hour();
            let slope = slope.map_or_else(|| "too short".to_owned(), |it| format!("{it:+.1} %/h"));
            format!("{name} {:.0} MiB ({slope})", growth.last_mib())
        };
        let all: Vec<String> = self.0.iter().map(one).collect();
        if all.is_empty() { "processes came and went".into() } else { all.join(", ") }
    }
}

/// 10⁶ requests, or as many as there is time for.
fn rolling_restarts(End { until, count }: End) -> anyhow::Result<Done> {
    let requests = count.unwrap_or(REQUESTS);
    let mut scene = rolling::Scene::start()?;
    let (mut memory, begun) = (Memory::default(), Instant::now());
    let mut seen = scene.ledger();
    while seen.requests < requests && Instant::now() < until {
        seen = scene.run((seen.requests + REQUESTS_PER_LOOK).min(requests), until)?;
        memory.look(begun.elapsed(), rss::of_sites(&scene.sites));
    }
    let what = format!("{} restarts of two gateways behind HAProxy", scene.restarts);
    Ok(Done { what, seen, memory })
}

/// 200 of them, in several federations.
fn deaths(End { until, count }: End) -> anyhow::Result<Done> {
    let deaths = usize::try_from(count.unwrap_or(DEATHS))?;
    let (mut back, mut writes, mut missing) = (Vec::new(), 0, 0);
    let mut seen = Ledger::default();
    while back.len() < deaths && Instant::now() < until {
        let rounds = (deaths - back.len()).min(DEATHS_PER_FEDERATION);
        let outcome = leaders::Scene::start()?.run(rounds, until)?;
        back.extend(outcome.back);
        writes += outcome.acknowledged.writes;
        missing += outcome.missing.len();
        seen.add(outcome.seen);
    }
    back.sort_unstable();
    let most = back.last().map_or(0, Duration::as_millis);
    let half = back.get(back.len() / 2).map_or(0, Duration::as_millis);
    let what = format!(
        "{} leaders killed, {writes} writes acknowledged, {missing} lost; writes back after {half} ms, \
         {most} ms at most",
        back.len()
    );
    Ok(Done { what, seen, memory: Memory::default() })
}

/// Waits until a moment, and looks at memory meanwhile.
fn watch(sites: &Sites, memory: &mut Memory, begun: Instant, until: Instant) {
    let mut next = begun;
    while Instant::now() < until {
        if Instant::now() >= next {
            memory.look(begun.elapsed(), rss::of_sites(sites));
            next += LOOK;
        }
        std::thread::park_timeout(LOOK / 10);
    }
}

/// West is away for all of the time but the last minute.
fn a_long_cut(End { until, .. }: End) -> anyhow::Result<Done> {
    let scene = path::Scene::start()?;
    let (outside, begun) = (scene.calls(2), Instant::now());
    let mut memory = Memory::default();
    scene.sites.relay().cut("west")?;
    let left = until.saturating_duration_since(begun);
    let heal = begun + left.saturating_sub(Duration::from_secs(60).min(left / 4));
    watch(&scene.sites, &mut memory, begun, heal);
    let away = begun.elapsed();
    scene.sites.relay().heal("west")?;
    let healed = Instant::now();
    scene.until_both_serve();
    scene.sites.settled()?;
    let converged = healed.elapsed();
    scene.sites.until_answer(path::EAST, "only", path::WEST);
    // Its new connections are no growth of the hour's.
    watch(&scene.sites, &mut Memory::default(), begun, until);
    let what = format!(
        "a site cut off for {} s, all as before {} ms after the heal",
        away.as_secs(),
        converged.as_millis()
    );
    Ok(Done { what, seen: outside.end(), memory })
}

/// 10 % of all packets are lost; no tunnel may be taken for dead.
fn false_alarms(End { until, .. }: End) -> anyhow::Result<Done> {
    let scene = path::Scene::start()?;
    let bad = Impairment::delayed(Duration::from_millis(20)).with_loss(0.1);
    let before = taken_for_dead(&scene.sites)?;
    scene.sites.relay().set_all(&bad)?;
    let (outside, begun) = (scene.calls(2), Instant::now());
    let mut memory = Memory::default();
    watch(&scene.sites, &mut memory, begun, until);
    let alarms = taken_for_dead(&scene.sites)? - before;
    let what = format!("10 % loss, 40 ms: {alarms} connections taken for dead");
    Ok(Done { what, seen: outside.end(), memory })
}

/// Connections that the gateways of all sites took for dead since they started.
fn taken_for_dead(sites: &Sites) -> anyhow::Result<f64> {
    let mut all = 0.0;
    for site in sites.iter() {
        let get = client::get(site.spec.admin, "localhost", "/metrics");
        let answer = sites.runtime.block_on(get)?;
        let page = Page::parse(std::str::from_utf8(&answer.body)?)?;
        let mut found = page.find("fed_tunnel_links_dead_total", &[]).peekable();
        ensure!(found.peek().is_some(), "{} counts no dead connections", site.spec.name);
        all += found.map(|sample| sample.value).sum::<f64>();
    }
    Ok(all)
}

/// A member that leaves and joins for ten minutes, or so many times.
fn comings_and_goings(End { until, count }: End) -> anyhow::Result<Done> {
    let scene = joins::Scene::start()?;
    let (outside, begun) = (scene.calls(2), Instant::now());
    let (mut memory, mut times) = (Memory::default(), Vec::new());
    let wanted = usize::try_from(count.unwrap_or(u64::MAX))?;
    let before = scene.term()?;
    while times.len() < wanted && Instant::now() < until {
        times.extend(scene.run(JOINS_PER_LOOK.min(wanted - times.len()), until)?);
        memory.look(begun.elapsed(), rss::of_sites(&scene.sites));
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let elections = scene.term()? - before;
    times.sort_unstable();
    let ms = |at: usize| times.get(at).map_or(0, Duration::as_millis);
    let what = format!(
        "a member left and joined {} times, {:.0} a minute, and the same three voted on ({elections} \
         elections); joining took {} ms, {} ms at most",
        times.len(),
        times.len() as f64 / minutes,
        ms(times.len() / 2),
        ms(times.len().saturating_sub(1))
    );
    Ok(Done { what, seen: outside.end(), memory })
}

fn steady(End { until, .. }: End) -> anyhow::Result<Done> {
    let scene = path::Scene::start()?;
    let (outside, begun) =
        (Outside::start(&scene.sites.target(path::EAST, "api"), 4), Instant::now());
    let mut memory = Memory::default();
    watch(&scene.sites, &mut memory, begun, until);
    wait::until("the last answers", LIMIT, || (outside.ledger().requests > 0).then_some(()));
    Ok(Done { what: "four clients, nothing else".into(), seen: outside.end(), memory })
}
