//! `fedctl cordon|uncordon|drain --gateway`: one gateway of the node's own cluster, by its admin port. The
//! gateway keeps it on its own disk.

use std::time::{Duration, Instant};

use http::Method;
use model::code::{DRAINING, GATEWAY_OUTDATED, GATEWAY_UNCONNECTED};
use serde::Serialize;
use serde_json::Value;
use wire::operator::proto::{GatewayStatus, Status};

use super::cordon::{QUIET, ROUND};
use crate::admin_port;
use crate::cli::Drain;
use crate::error::{CommandError, Exit};
use crate::operator::Operator;
use crate::printer::{OutputFormat, Printer};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewayCordonView {
    api_version: &'static str,
    kind: &'static str,
    gateway: String,
    cordoned: bool,
    /// It was not so already.
    changed: bool,
    in_progress: u64,
}

pub(super) async fn cordon(
    gateway: &str,
    force: bool,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let (admin, changed) = set(gateway, force, node).await?;
    let in_progress = admin.state().await?.in_progress;
    printer.result(&view(gateway, true, changed, in_progress), |view| match view.changed {
        true => format!("{gateway} is cordoned: other clusters and load balancers are told."),
        false => format!("{gateway} was cordoned already."),
    })?;
    undo(gateway, printer);
    Ok(())
}

pub(super) async fn uncordon(
    gateway: &str,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let admin = Admin::of(&node.status().await?, gateway)?;
    let before = admin.state().await?;
    admin.post("/uncordon").await?;
    printer.result(&view(gateway, false, before.cordoned, before.in_progress), |view| {
        match view.changed {
            true => format!("{gateway} is uncordoned: other clusters and load balancers are told."),
            false => format!("{gateway} was not cordoned."),
        }
    })
}

pub(super) async fn drain(
    gateway: &str,
    args: &Drain,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let (admin, changed) = set(gateway, args.cordon.force, node).await?;
    let seconds = args.wait.as_secs();
    printer.talk(&format!(
        "{gateway} is cordoned; waiting {seconds} s at most for what is in progress."
    ));
    let (begun, mut quiet_since) = (Instant::now(), None);
    loop {
        let state = admin.state().await?;
        if !state.cordoned {
            let message = format!("{gateway} was uncordoned meanwhile");
            return Err(CommandError::failed(message).hint("drain it again"));
        }
        match state.in_progress {
            0 if quiet_since.get_or_insert_with(Instant::now).elapsed() >= QUIET => break,
            0 => {}
            _ => quiet_since = None,
        }
        if begun.elapsed() >= args.wait {
            let message = format!("{gateway} is not drained after {seconds} s: {}", state.told());
            return Err(CommandError::new(Exit::TimedOut, message).code(DRAINING).hint(format!(
                "it stays cordoned: run this again to wait on, or fedctl uncordon --gateway {gateway}"
            )));
        }
        printer.detail(&state.told());
        tokio::time::sleep(ROUND).await;
    }
    printer.result(&view(gateway, true, changed, 0), |_| {
        format!("{gateway} is drained: nothing is in progress there.")
    })?;
    undo(gateway, printer);
    Ok(())
}

/// `true`: it was not cordoned already.
async fn set(gateway: &str, force: bool, node: &Operator) -> Result<(Admin, bool), CommandError> {
    let status = node.status().await?;
    let admin = Admin::of(&status, gateway)?;
    let before = admin.state().await?;
    if !before.cordoned && !force && !has_another(&status, gateway) {
        let message = format!("no other gateway of {} serves now", status.cluster);
        return Err(CommandError::failed(message).code(GATEWAY_UNCONNECTED).hint(
            "start another one and see that `fedctl status` has it as Ready; --force cordons this one \
             all the same: peers use it on, load balancers may not",
        ));
    }
    admin.post("/cordon").await?;
    Ok((admin, !before.cordoned))
}

fn has_another(status: &Status, gateway: &str) -> bool {
    let serves = |other: &GatewayStatus| {
        let report = other.report.as_ref();
        other.connected && report.is_some_and(|report| report.ready && !report.draining)
    };
    status.gateways.iter().any(|other| other.name != gateway && serves(other))
}

fn view(gateway: &str, cordoned: bool, changed: bool, in_progress: u64) -> GatewayCordonView {
    let (api_version, kind) = ("fedgate.dev/v1alpha1", "GatewayCordon");
    GatewayCordonView { api_version, kind, gateway: gateway.into(), cordoned, changed, in_progress }
}

fn undo(gateway: &str, printer: &Printer) {
    if printer.format == OutputFormat::Table {
        printer.talk(&format!("Undo: fedctl uncordon --gateway {gateway}"));
    }
}

/// A gateway's admin port, as the gateway itself has told its node.
struct Admin {
    cluster: String,
    gateway: String,
    version: String,
    address: String,
}

/// What `GET /cordon` says.
#[derive(Debug)]
struct State {
    cordoned: bool,
    in_progress: u64,
    /// `2 from west`.
    with: Vec<String>,
}

impl Admin {
    fn of(status: &Status, gateway: &str) -> Result<Self, CommandError> {
        let Some(found) = status.gateways.iter().find(|found| found.name == gateway) else {
            let known: Vec<&str> = status.gateways.iter().map(|found| &*found.name).collect();
            let hint = match known.is_empty() {
                true => "no gateway has connected since the node started".to_owned(),
                false => format!("it knows {}", known.join(", ")),
            };
            let message = format!("the node of {} knows no gateway {gateway:?}", status.cluster);
            return Err(CommandError::failed(message).code(GATEWAY_UNCONNECTED).hint(hint));
        };
        let report = found.report.clone().unwrap_or_default();
        if report.admin_address.is_empty() {
            let message = format!("{gateway} has not said yet where its admin port is");
            return Err(CommandError::failed(message).code(GATEWAY_UNCONNECTED));
        }
        Ok(Self {
            cluster: status.cluster.clone(),
            gateway: gateway.into(),
            version: report.version,
            address: report.admin_address,
        })
    }

    /// At another machine the same address leads to nobody, or to another gateway.
    async fn state(&self) -> Result<State, CommandError> {
        let Self { cluster, gateway, version, address } = self;
        let (status, body) = self.ask(Method::GET, "/cordon").await?;
        if status == 404 {
            let message = format!("{gateway} cannot be cordoned: its version is {version}");
            return Err(CommandError::failed(message).code(GATEWAY_OUTDATED));
        }
        let value: Value = serde_json::from_str(&body).unwrap_or_default();
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        if status != 200 || text("gateway") != gateway || text("cluster") != cluster {
            let message = format!("{address} is not the admin port of {gateway} of {cluster}");
            return Err(elsewhere(message));
        }
        Ok(State::of(&value))
    }

    async fn post(&self, path: &str) -> Result<(), CommandError> {
        match self.ask(Method::POST, path).await? {
            (200, _) => Ok(()),
            (_, body) => Err(CommandError::failed(format!("{}: {}", self.gateway, body.trim()))),
        }
    }

    async fn ask(&self, method: Method, path: &str) -> Result<(u16, String), CommandError> {
        let (gateway, address) = (&self.gateway, &self.address);
        let answer = admin_port::ask(address, method, path, ANSWER_TIMEOUT, ANSWER_BYTES_MAX);
        answer.await.map_err(|why| {
            elsewhere(format!("the admin port of {gateway}, {address}, cannot be reached: {why}"))
        })
    }
}

fn elsewhere(message: String) -> CommandError {
    CommandError::new(Exit::Unreachable, message)
        .hint("run this on the gateway's machine: its admin port is open there only")
}

impl State {
    fn of(value: &Value) -> Self {
        let mut with = Vec::new();
        for row in value["clusters"].as_array().into_iter().flatten() {
            let name = row["name"].as_str().unwrap_or_default();
            for (field, word) in [("received", "from"), ("sent", "to")] {
                match row[field].as_u64() {
                    None | Some(0) => {}
                    Some(count) => with.push(format!("{count} {word} {name}")),
                }
            }
        }
        Self {
            cordoned: value["cordoned"].as_bool().unwrap_or_default(),
            in_progress: value["inProgress"].as_u64().unwrap_or_default(),
            with,
        }
    }

    fn told(&self) -> String {
        let with = match self.with.is_empty() {
            true => String::new(),
            false => format!(" ({})", self.with.join(", ")),
        };
        match self.in_progress {
            0 => "nothing has been in progress for less than 2 s".into(),
            1 => format!("1 exchange is in progress{with}"),
            count => format!("{count} exchanges are in progress{with}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use wire::resource::proto::StatusReport;

    use super::*;

    fn gateway(name: &str, ready: bool, admin_address: &str) -> GatewayStatus {
        let (admin_address, version) = (admin_address.to_owned(), "0.1.0".into());
        let report = StatusReport { ready, admin_address, version, ..StatusReport::default() };
        let report = Some(report);
        GatewayStatus { name: name.into(), connected: true, report, ..GatewayStatus::default() }
    }

    fn status(gateways: Vec<GatewayStatus>) -> Status {
        Status { cluster: "west".into(), gateways, ..Status::default() }
    }

    #[test]
    fn who_is_not_known_is_told_who_is() {
        let known = status(vec![gateway("gw-0", true, "127.0.0.1:1"), gateway("gw-1", true, "")]);
        let error = |name: &str| Admin::of(&known, name).err().unwrap().to_string();
        assert_eq!(
            error("gw-2"),
            "error: the node of west knows no gateway \"gw-2\" (FED1119)\nhint: it knows gw-0, gw-1"
        );
        assert!(error("gw-1").contains("has not said yet where its admin port is"));
        let nobody = Admin::of(&status(vec![]), "gw-0").err().unwrap().to_string();
        assert!(nobody.ends_with("hint: no gateway has connected since the node started"));
    }

    #[test]
    fn one_that_is_not_ready_does_not_stand_in() {
        let both = |ready| status(vec![gateway("gw-0", true, ""), gateway("gw-1", ready, "")]);
        assert!(has_another(&both(true), "gw-0"));
        assert!(!has_another(&both(false), "gw-0"));
        assert!(has_another(&both(false), "gw-1"));
    }

    #[test]
    fn what_is_left_is_told_by_cluster() {
        let row = json!({"name": "east", "sent": 1, "received": 2});
        let state = State::of(&json!({"cordoned": true, "inProgress": 4, "clusters": [row]}));
        assert_eq!(state.told(), "4 exchanges are in progress (2 from east, 1 to east)");
        assert_eq!(State::of(&json!({"inProgress": 1})).told(), "1 exchange is in progress");
    }

    /// An admin port that answers one request.
    async fn answering(answer: &'static str) -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        Admin::of(&status(vec![gateway("gw-0", true, &address)]), "gw-0").unwrap()
    }

    #[tokio::test]
    async fn only_the_gateways_own_port_of_this_version_is_believed() {
        let good = "HTTP/1.0 200 OK\r\n\r\n\
                    {\"gateway\": \"gw-0\", \"cluster\": \"west\", \"cordoned\": true}";
        assert!(answering(good).await.state().await.unwrap().cordoned);
        for (answer, exit, wanted) in [
            (
                "HTTP/1.0 200 OK\r\n\r\n{\"gateway\": \"gw-0\", \"cluster\": \"east\"}",
                Exit::Unreachable,
                "is not the admin port of gw-0 of west",
            ),
            (
                "HTTP/1.0 404 Not Found\r\n\r\n",
                Exit::Failed,
                "gw-0 cannot be cordoned: its version is 0.1.0 (FED1124)",
            ),
            (
                "",
                Exit::Unreachable,
                "cannot be reached: connection closed before message completed",
            ),
        ] {
            let error = answering(answer).await.state().await.unwrap_err();
            assert_eq!(error.exit, exit);
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_cluster_or_a_gateway_is_cordoned() {
        let parses = |line: &str| {
            let words = line.split(' ').map(std::ffi::OsString::from);
            crate::cli::parse_from(words.collect()).is_ok()
        };
        for line in [
            "fedctl cordon west --reason disks",
            "fedctl cordon --gateway gw-0 --force",
            "fedctl uncordon --gateway gw-0",
            "fedctl drain --gateway gw-0 --wait 60s",
        ] {
            assert!(parses(line), "{line}");
        }
        for line in [
            "fedctl cordon",
            "fedctl cordon west --gateway gw-0",
            "fedctl cordon west --force",
            "fedctl cordon --gateway gw-0 --reason disks",
            "fedctl uncordon",
        ] {
            assert!(!parses(line), "{line}");
        }
    }
}
