//! `fedctl check`: reads, judges, prints; again and again if told to wait.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Outcome;
use crate::check::{
    Report, Verdict, installed_rows, machine_rows, node_rows, pre_rows, read_from_node,
    read_in_cluster, read_machine, read_rights,
};
use crate::cli::{Check, Global};
use crate::connect::{self, Target};
use crate::error::{CommandError, Exit};
use crate::kubernetes::{self, Cluster, NAMESPACE_DEFAULT};
use crate::operator::Operator;
use crate::printer::{OutputFormat, Printer};
use crate::survey;

/// Between two rounds of `--wait`.
const ROUND: Duration = Duration::from_secs(2);

pub(super) async fn run(
    args: &Check,
    global: &Global,
    printer: &Printer,
) -> Result<Outcome, CommandError> {
    let target = match args.pre {
        true => connect::chosen(global)?,
        false => connect::chosen_node(global)?,
    };
    let begun = Instant::now();
    if let Some(limit) = args.wait {
        printer.talk(&format!("Waiting until nothing fails, {} s at most.", limit.as_secs()));
    }
    let report = loop {
        let report = round(args, global, &target, printer).await?;
        let failed = report.count(Verdict::Fail);
        match args.wait {
            Some(limit) if failed > 0 && begun.elapsed() + ROUND < limit => {
                printer.detail(&format!("{failed} checks fail; again in {} s", ROUND.as_secs()));
                tokio::time::sleep(ROUND).await;
            }
            Some(limit) if failed > 0 => {
                show(&report, printer)?;
                let message = format!("{failed} checks still fail after {} s", limit.as_secs());
                return Err(CommandError::new(Exit::TimedOut, message));
            }
            _ => break report,
        }
    };
    show(&report, printer)?;
    Ok(outcome(&report, args.strict))
}

async fn round(
    args: &Check,
    global: &Global,
    target: &Target,
    printer: &Printer,
) -> Result<Report, CommandError> {
    let rows = match target {
        Target::Kubernetes { namespace, .. } => {
            let cluster = connect::cluster(global, target, printer).await?;
            let namespace = namespace.as_deref();
            match args.pre {
                true => before(&cluster, namespace).await?,
                false => after(&cluster, namespace, global, printer).await?,
            }
        }
        Target::Socket(_) if args.pre => {
            return Err(CommandError::usage("--pre is about a Kubernetes cluster")
                .hint("name one with --kube-context"));
        }
        Target::Socket(socket) => {
            let found = async { read_from_node(&Operator::connect(socket).await?).await };
            let mut rows = node_rows(&found.await, Timestamp::now());
            rows.extend(machine_rows(&read_machine()));
            rows
        }
    };
    Report { rows }.only(&args.only).map_err(CommandError::usage)
}

async fn before(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<crate::check::Row>, CommandError> {
    let survey = survey::read(cluster, namespace, Timestamp::now).await?;
    let rights = read_rights(cluster, namespace.unwrap_or(NAMESPACE_DEFAULT)).await?;
    Ok(pre_rows(&survey, &rights))
}

/// What the cluster says comes first: it tells why a node does not answer.
async fn after(
    cluster: &Cluster,
    namespace: Option<&str>,
    global: &Global,
    printer: &Printer,
) -> Result<Vec<crate::check::Row>, CommandError> {
    let found = kubernetes::find(cluster, namespace).await;
    // An API server that does not answer would only say so once in each row.
    let found = match found {
        Err(error) if error.code == Some(model::code::API_SERVER_UNREACHABLE) => return Err(error),
        found => found,
    };
    let place = found.as_ref().ok().map(|found| found.namespace.clone());
    let place = place.unwrap_or_else(|| namespace.unwrap_or(NAMESPACE_DEFAULT).into());
    let now = Timestamp::now();
    let mut rows = installed_rows(&read_in_cluster(cluster, &place, now).await);
    let node = match found {
        Err(error) => Err(error),
        Ok(_) => match connect::through(cluster, Some(&place), global, printer).await {
            Ok(node) => read_from_node(&node).await,
            Err(error) => Err(error),
        },
    };
    rows.extend(node_rows(&node, now));
    Ok(rows)
}

fn show(report: &Report, printer: &Printer) -> Result<(), CommandError> {
    match printer.format {
        OutputFormat::Short => printer.data(&report.short()),
        OutputFormat::Junit => printer.data(&report.junit()),
        _ => printer.result(&report.view(), |_| report.table()),
    }
}

fn outcome(report: &Report, strict: bool) -> Outcome {
    match (report.count(Verdict::Fail), report.count(Verdict::Warn)) {
        (0, 0) => Outcome::Done,
        (0, _) if strict => Outcome::Warned,
        (0, _) => Outcome::Done,
        _ => Outcome::Unwell,
    }
}
