//! The steps of the measurement, in their order. Each adds its rows to the report.

use std::time::Instant;

use anyhow::{Context, ensure};
use wire::store::Heads;
use wire::store::limits::MESSAGE_BYTES_MAX;
use wire::store::proto::store_service_client::StoreServiceClient;

use super::child::{Process, folder_bytes};
use super::clusters::{ALL_SEEING, ROOT};
use super::meter::Meter;
use super::watchers::{Seen, Watchers};
use super::{
    Bench, Leader, Reader, kib, mib, ms, node, node_arguments, quantile, reader_arguments,
};

/// Ports of the exports: the first publication's, then one for each change.
const FIRST_PORT: u16 = 8000;
/// Loadings of the state, one after the other, all kept.
const LOADS: u32 = 4;
/// This one's Replica sees what a usual member sees.
const USUAL: u32 = 2;

/// The federation is founded, all join, all publish.
pub(super) async fn build(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let (count, leader) = (f64::from(bench.shape.clusters), &bench.leader);
    leader.propose(bench.clusters[ROOT as usize].found()).await?;
    let span = leader.span()?;
    let (root, others) = bench.clusters.split_first().context("there is a root")?;
    // In rounds: the store refuses more open tokens than a limit.
    for some in others.chunks(100) {
        let (issued, redeemed) =
            some.iter().map(|other| other.admission(root)).map(Into::into).unzip();
        leader.propose_all(issued).await?;
        leader.propose_all(redeemed).await?;
    }
    let (wall, cpu) = (span.wall(), span.cpu(leader)?);
    let admitted =
        format!("{} a cluster, {:.1} s in all", ms(cpu.div_f64(count)), wall.as_secs_f64());
    bench.report.row("leader's CPU to admit (token, redemption)", admitted)?;
    let changes = bench.clusters.iter_mut().map(|it| it.publish_all(bench.shape, FIRST_PORT));
    let changes = changes.collect::<anyhow::Result<Vec<_>>>()?;
    let span = leader.span()?;
    leader.propose_all(changes).await?;
    let (wall, cpu) = (span.wall(), span.cpu(leader)?);
    let records: usize = bench.clusters.iter().map(|it| it.records()).sum();
    let bytes: usize = bench.clusters.iter().map(|it| it.record_bytes()).sum();
    let published =
        format!("{} a cluster, {:.1} s in all", ms(cpu.div_f64(count)), wall.as_secs_f64());
    bench.report.row("leader's CPU for a first publication, all exports", published)?;
    let held = format!(
        "{:.0} records of {:.1} KiB with their keys",
        records as f64 / count,
        kib(bytes as u64) / count
    );
    bench.report.row("a cluster has", held)?;
    let resident = leader.process.resident_kib()?;
    let grown = bench.per_cluster(resident.saturating_sub(leader.empty_kib));
    let figure = format!("{grown:.1} KiB a cluster ({:.0} MiB in all)", mib(resident));
    bench.report.row("leader's memory after that, with its history for watchers", figure)
}

/// Two Replicas, and changes with only them.
pub(super) async fn readers(bench: &mut Bench<'_>) -> anyhow::Result<Vec<Reader>> {
    let mut readers = Vec::new();
    for cluster in [USUAL, ALL_SEEING] {
        let mut reader = Reader::start(bench, cluster).await?;
        let cpu = reader.process.cpu()?;
        reader.process.go().await?;
        let seeded = reader.process.wait_for("seeded").await?;
        let [took, members, records] = seeded[..] else {
            anyhow::bail!("what was seeded: {seeded:?}")
        };
        ensure!(members == u64::from(bench.shape.clusters), "{members} members came");
        let cpu = reader.process.cpu()?.saturating_sub(cpu);
        let bytes = reader.meter.sent();
        let figure = format!(
            "{:.2} KiB a cluster ({:.1} MiB, {records} records shown), {} ms until verified and on \
             disk, {} of CPU",
            kib(bytes) / f64::from(bench.shape.clusters),
            kib(bytes) / 1024.0,
            took / 1000,
            ms(cpu)
        );
        bench.report.row(format!("{}: snapshot on the wire", reader.name()), figure)?;
        let grown = reader.process.resident_kib()?.saturating_sub(reader.empty_kib);
        let figure = format!("{:.1} KiB a cluster", bench.per_cluster(grown));
        bench.report.row(format!("{}: memory after the snapshot", reader.name()), figure)?;
        readers.push(reader);
    }
    change(bench, &mut readers).await?;
    republish(bench, &mut readers).await?;
    Ok(readers)
}

/// One export after the other gets another port.
async fn change(bench: &mut Bench<'_>, readers: &mut [Reader]) -> anyhow::Result<()> {
    let changes = bench.options.changes;
    let (mut times, mut last) = (Vec::new(), 0);
    let before: Vec<u64> = readers.iter().map(|reader| reader.meter.sent()).collect();
    let cpus = readers.iter().map(|it| it.process.cpu()).collect::<anyhow::Result<Vec<_>>>()?;
    let span = bench.leader.span()?;
    for number in 0..changes {
        let change = next_change(bench, number)?;
        let begun = Instant::now();
        last = bench.leader.propose(change).await?;
        times.push(begun.elapsed());
    }
    let cpu = span.cpu(&bench.leader)? / changes;
    let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    let figure = format!("{} / {}, leader's CPU {}", ms(p50), ms(p99), ms(cpu));
    bench.report.row("one export changed: p50 / p99 until acknowledged", figure)?;
    for ((reader, before), cpu) in readers.iter_mut().zip(before).zip(cpus) {
        reader.reach(last).await?;
        let bytes = reader.meter.sent().saturating_sub(before) / u64::from(changes);
        let cpu = reader.process.cpu()?.saturating_sub(cpu) / changes;
        let figure = format!("{bytes} bytes, {} of CPU", ms(cpu));
        bench.report.row(format!("{}: delta of one changed export", reader.name()), figure)?;
    }
    Ok(())
}

/// One cluster publishes all of its exports anew.
async fn republish(bench: &mut Bench<'_>, readers: &mut [Reader]) -> anyhow::Result<()> {
    let before: Vec<u64> = readers.iter().map(|reader| reader.meter.sent()).collect();
    // The usual reader is a consumer of its neighbour, of one namespace out of five.
    let owner = &mut bench.clusters[USUAL as usize - 1];
    let change = owner.publish_all(bench.shape, FIRST_PORT + 1)?;
    let index = bench.leader.propose(change).await?;
    for (reader, before) in readers.iter_mut().zip(before) {
        reader.reach(index).await?;
        let bytes = reader.meter.sent().saturating_sub(before);
        let what = format!("{}: delta of all exports of a cluster", reader.name());
        bench.report.row(what, format!("{:.1} KiB", kib(bytes)))?;
    }
    Ok(())
}

/// Owners in turn, so that neither one owner nor one reader has it all.
fn next_change(bench: &mut Bench<'_>, number: u32) -> anyhow::Result<wire::store::Change> {
    let owner = (number * 37 + 11) % bench.shape.clusters;
    let port = FIRST_PORT + 2 + u16::try_from(number % 10_000)?;
    bench.clusters[owner as usize].publish_one(number % bench.shape.exports, port)
}

/// Many members watch.
pub(super) async fn watch(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let (count, leader) = (bench.options.watchers, &bench.leader);
    let each = |bytes: u64| bytes / u64::from(count);
    let meter = Meter::start(leader.address).await?;
    let before = leader.process.resident_kib()?;
    let span = leader.span()?;
    // From the far end: neither the leader nor one of the two Replicas.
    let clusters = bench.shape.clusters - count..bench.shape.clusters;
    let mut watchers = Watchers::start(meter.address(), clusters)?;
    watchers.reach(1).await?;
    let (wall, cpu) = (span.wall(), span.cpu(leader)? / count);
    let figure = format!(
        "{:.0} KiB each, all in {:.1} s, leader's CPU {} each",
        kib(each(meter.sent())),
        wall.as_secs_f64(),
        ms(cpu)
    );
    bench.report.row(format!("{count} members begin to watch at once: snapshots"), figure)?;
    let grown = leader.process.resident_kib()?.saturating_sub(before);
    let figure = format!("{:.0} KiB a watcher", grown as f64 / f64::from(count));
    bench.report.row("leader's memory for them", figure)?;
    egress(bench, &mut watchers, &meter).await?;
    let before = meter.sent();
    tokio::time::sleep(std::time::Duration::from_secs(bench.options.idle_s)).await;
    let bytes = each(meter.sent().saturating_sub(before));
    let what =
        format!("leader's egress to a watcher while nothing changes, {} s", bench.options.idle_s);
    bench.report.row(what, format!("{bytes} bytes"))?;
    ensure!(watchers.ended() == 0, "a watch stream ended: the figures mean nothing");
    Ok(())
}

/// Changes, each of which all watchers have before the next one is made.
async fn egress(
    bench: &mut Bench<'_>,
    watchers: &mut Watchers,
    meter: &Meter,
) -> anyhow::Result<()> {
    let (changes, count) = (bench.options.changes, bench.options.watchers);
    let total = |all: &[Seen]| {
        all.iter().map(|seen| (seen.bytes, seen.deltas)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    let (bytes, seen) = (meter.sent(), total(&watchers.seen()));
    let span = bench.leader.span()?;
    let (mut each, mut slowest) = (Vec::new(), Vec::new());
    for number in 0..changes {
        let change = next_change(bench, 1000 + number)?;
        let begun = Instant::now();
        let index = bench.leader.propose(change).await?;
        let times = watchers.reach(index).await?;
        let times = times.into_iter().map(|at| at.saturating_duration_since(begun));
        let from = each.len();
        each.extend(times);
        slowest.extend(each[from..].iter().max().copied());
    }
    let cpu = span.cpu(&bench.leader)? / changes;
    let now = total(&watchers.seen());
    let (events, deltas) = (now.0 - seen.0, now.1 - seen.1);
    ensure!(deltas >= u64::from(changes * count), "{deltas} deltas came");
    let of_one = (meter.sent() - bytes) / u64::from(changes);
    let figure = format!(
        "{:.1} KiB for {count} watchers, {} bytes each ({} of them the event)",
        kib(of_one),
        of_one / u64::from(count),
        events / deltas
    );
    bench.report.row("leader's egress for one changed export", figure)?;
    bench.report.row("leader's CPU for it, watchers included", ms(cpu))?;
    let figure = format!("{} / {}", ms(quantile(&mut each, 0.5)), ms(quantile(&mut each, 0.99)));
    bench.report.row("proposed until a watcher has it, p50 / p99", figure)?;
    let figure = ms(quantile(&mut slowest, 0.99));
    bench.report.row("proposed until all watchers have it, p99", figure)
}

/// Two members compare all Heads, each signed anew; then again, when they are known.
pub(super) async fn heads(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let heads = bench.clusters.iter().map(|cluster| cluster.head()).collect();
    let request = Heads { heads, revocations: Vec::new() }.encode_request();
    let meter = Meter::start(bench.leader.address).await?;
    let link = node::channel(meter.address(), USUAL)?;
    let mut client = StoreServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
    for what in ["all signed anew", "all known"] {
        let (sent, received) = (meter.sent(), meter.received());
        let span = bench.leader.span()?;
        let reply = client.heads(request.clone()).await?.into_inner();
        let told = Heads::decode_reply(reply)?.heads.len();
        ensure!(told == bench.clusters.len(), "{told} Heads came back");
        let figure = format!(
            "{:.0} KiB to the leader, {:.0} KiB from it, {} of its CPU",
            kib(meter.received() - received),
            kib(meter.sent() - sent),
            ms(span.cpu(&bench.leader)?)
        );
        bench.report.row(format!("one comparison of Heads, {what}"), figure)?;
    }
    Ok(())
}

/// Everything is killed and started again.
pub(super) async fn restart(bench: Bench<'_>, readers: Vec<Reader>) -> anyhow::Result<String> {
    let Bench { shape, folder, leader, mut report, .. } = bench;
    let per_cluster = |kib: u64| kib as f64 / f64::from(shape.clusters);
    let (path, empty_kib) = (folder.join("leader"), leader.empty_kib);
    for reader in readers {
        let (name, empty) = (reader.name(), reader.empty_kib);
        let Reader { process, meter, cluster, folder, .. } = reader;
        process.kill().await?;
        let disk = folder_bytes(&folder)?;
        let mut process = Process::verb("reader", &reader_arguments(&folder, cluster, &meter))?;
        let opened = process.wait_for("opened").await?;
        let [took, index] = opened[..] else { anyhow::bail!("what was opened: {opened:?}") };
        ensure!(index > 0, "the replica came back with nothing");
        let grown = per_cluster(process.resident_kib()?.saturating_sub(empty));
        let figure = format!(
            "{} ms, {grown:.1} KiB of memory a cluster; {:.1} KiB a cluster on disk",
            took / 1000,
            per_cluster(disk / 1024)
        );
        report.row(format!("{name}: killed, and all verified again"), figure)?;
    }
    leader.process.kill().await?;
    let disk = folder_bytes(&path)?;
    let leader = Leader::start_again(&path).await?;
    let (opened, leads, process) = leader;
    let grown = per_cluster(process.resident_kib()?.saturating_sub(empty_kib));
    let figure = format!("{} ms, leads after {} ms", opened / 1000, leads / 1000);
    report.row("leader: killed, and all verified again", figure)?;
    report.row("leader's memory then", format!("{grown:.1} KiB a cluster"))?;
    let figure =
        format!("{:.1} KiB a cluster ({:.1} MiB)", per_cluster(disk / 1024), mib(disk / 1024));
    report.row("leader's RocksDB folder, log included", figure)?;
    process.kill().await?;
    let mut arguments = node_arguments(&path, "127.0.0.1:0");
    arguments.extend(["--load".into(), LOADS.to_string()]);
    let mut process = Process::verb("node", &arguments)?;
    let mut loads = Vec::new();
    for _ in 0..LOADS {
        let line = process.wait_for("loaded").await?;
        let [took, resident, bytes] = line[..] else { anyhow::bail!("what was loaded: {line:?}") };
        loads.push((took, resident, bytes));
    }
    process.ended().await?;
    let (first, last) = (loads[0], loads[loads.len() - 1]);
    let own = last.1.saturating_sub(first.1) as f64 / f64::from(LOADS - 1);
    let figure = format!(
        "{:.1} KiB a cluster ({:.0} MiB; {:.1} KiB a cluster as keys and values), loaded and \
         verified in {} ms",
        own / f64::from(shape.clusters),
        own / 1024.0,
        kib(last.2) / f64::from(shape.clusters),
        last.0 / 1000
    );
    report.row("FleetState alone", figure)?;
    Ok(report.0)
}

impl Leader {
    /// Microseconds until the store is open and until it leads.
    async fn start_again(folder: &std::path::Path) -> anyhow::Result<(u64, u64, Process)> {
        let address = super::free_address()?;
        let mut process = Process::verb("node", &node_arguments(folder, &address.to_string()))?;
        let opened = *process.wait_for("opened").await?.first().context("a time")?;
        let leads = *process.wait_for("leads").await?.first().context("a time")?;
        Ok((opened, leads, process))
    }
}
