//! Status of ServiceExports: what the federation made of them (KEP-1645, "ServiceExport").
//!
//! Nothing is decided here: the provider says what is wrong with an object, `fleet::own_records`
//! what cannot be published, `fleet::serving` which export serves. This puts it into conditions.

use std::collections::BTreeSet;

use api::kubernetes::{ConditionStatus, ExportCondition, ExportReason};
use model::code::{EXPORT_NOT_GRANTED, EXPORT_WITHOUT_POLICY};
use model::{ClusterName, Diagnostic, ServiceName, ServicePort, Severity};

use super::condition::Condition;
use crate::fleet::Exporter;

/// What is known of one ServiceExport.
#[derive(Debug)]
pub(super) struct ExportFacts<'a> {
    pub(super) name: &'a ServiceName,
    pub(super) service: ServiceFacts,
    /// Of the provider, about the export ...
    pub(super) reading: &'a [&'a Diagnostic],
    /// ... and about its Service.
    pub(super) service_reading: &'a [&'a Diagnostic],
    /// Of everything behind the provider, about the export.
    pub(super) publishing: &'a [&'a Diagnostic],
    /// `None`: this cluster is in no federation.
    pub(super) standing: Option<Standing<'a>>,
}

/// The Service of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServiceFacts {
    Served,
    /// It is there and cannot be served.
    Refused,
    Missing,
}

/// What the federation has of an export.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing<'a> {
    /// This cluster.
    pub(super) own: &'a ClusterName,
    /// The store acknowledged a Head of this cluster's with the export in it.
    pub(super) is_acknowledged: bool,
    /// Who serves the name, the oldest export first.
    pub(super) exporters: &'a [Exporter],
    /// Why this cluster's export does not serve.
    pub(super) idle: Option<&'a Diagnostic>,
}

/// The conditions of an export: always all three.
pub(super) fn conditions(facts: &ExportFacts<'_>) -> Vec<Condition> {
    let valid = valid(facts);
    let ready = if valid.status == ConditionStatus::True {
        ready(facts)
    } else {
        let message = "it is not exported, since it is not valid";
        condition(
            ExportCondition::Ready,
            ConditionStatus::False,
            ExportReason::Failed,
            message.into(),
        )
    };
    vec![valid, ready, conflict(facts)]
}

fn valid(facts: &ExportFacts<'_>) -> Condition {
    let condition =
        |status, reason, message| condition(ExportCondition::Valid, status, reason, message);
    let refused = |reason, message| condition(ConditionStatus::False, reason, message);
    if let Some(errors) = told(facts.reading, Severity::Error) {
        return refused(ExportReason::Invalid, errors);
    }
    let service_errors = told(facts.service_reading, Severity::Error);
    let is_of_type =
        |found: &&Diagnostic| found.severity == Severity::Error && found.field == "spec.type";
    if facts.service_reading.iter().any(is_of_type) {
        return refused(ExportReason::InvalidServiceType, service_errors.unwrap_or_default());
    }
    match facts.service {
        ServiceFacts::Missing => {
            let fix = "create the Service, or remove the ServiceExport";
            refused(ExportReason::NoService, format!("there is no Service {}; {fix}", facts.name))
        }
        ServiceFacts::Refused => {
            let otherwise = || format!("the Service {} cannot be served", facts.name);
            refused(ExportReason::Invalid, service_errors.unwrap_or_else(otherwise))
        }
        ServiceFacts::Served => {
            let mut message = format!("the Service {} can be exported", facts.name);
            // What is left out of it, and what is without effect.
            let warnings = [facts.service_reading, facts.reading];
            let warnings = warnings.map(|found| told(found, Severity::Warning));
            let notes: Vec<String> =
                [service_errors].into_iter().chain(warnings).flatten().collect();
            if !notes.is_empty() {
                message += &format!("; but {}", notes.join("; "));
            }
            condition(ConditionStatus::True, ExportReason::Valid, message)
        }
    }
}

fn ready(facts: &ExportFacts<'_>) -> Condition {
    let condition =
        |status, reason, message| condition(ExportCondition::Ready, status, reason, message);
    let pending =
        |message: &str| condition(ConditionStatus::False, ExportReason::Pending, message.into());
    let failed = |message| condition(ConditionStatus::False, ExportReason::Failed, message);
    let Some(standing) = &facts.standing else {
        return pending(
            "this cluster is in no federation; join one with `fedctl join`, or found one with \
             `fedctl init`",
        );
    };
    if !standing.is_acknowledged {
        return match told(facts.publishing, Severity::Error) {
            Some(errors) => failed(errors),
            None => pending("the federation's store has not acknowledged it yet"),
        };
    }
    if standing.mine().is_some() {
        let unreachable = facts.publishing.iter().find(|found| found.code == EXPORT_WITHOUT_POLICY);
        let message = match unreachable {
            Some(found) => format!("exported, but {}", text(found)),
            None => "exported; AccessPolicies say who may reach it".into(),
        };
        return condition(ConditionStatus::True, ExportReason::Exported, message);
    }
    match standing.idle {
        Some(idle) => failed(text(idle)),
        None => failed("it does not serve; `fedctl services` shows who does".into()),
    }
}

fn conflict(facts: &ExportFacts<'_>) -> Condition {
    let condition =
        |status, reason, message| condition(ExportCondition::Conflict, status, reason, message);
    let none = |message: &str| {
        condition(ConditionStatus::False, ExportReason::NoConflicts, message.into())
    };
    let Some(standing) = facts.standing.as_ref().filter(|standing| standing.is_acknowledged) else {
        return none("it is not exported");
    };
    let Some(mine) = standing.mine() else {
        let (reason, message) = standing.conflict();
        return match reason {
            Some(reason) => condition(ConditionStatus::True, reason, message),
            None => none(&message),
        };
    };
    let differing: Vec<String> = standing
        .exporters
        .iter()
        .filter(|other| other.name != *standing.own && ports(&other.ports) != ports(&mine.ports))
        .map(|other| format!("{} has {}", other.name, show(&other.ports)))
        .collect();
    if differing.is_empty() {
        return none("all clusters that serve it agree");
    }
    // KEP-1645, "Conflict resolution": the union of all ports, and the oldest export's word.
    let message = format!(
        "the ports differ: {}, this cluster has {}; importers get all of them, and where two \
         contradict each other those of {}, the oldest export; make the Service's ports the same",
        differing.join(", "),
        show(&mine.ports),
        standing.exporters[0].name
    );
    condition(ConditionStatus::True, ExportReason::PortConflict, message)
}

impl Standing<'_> {
    /// This cluster's export, if it serves.
    fn mine(&self) -> Option<&Exporter> {
        self.exporters.iter().find(|exporter| exporter.name == *self.own)
    }

    /// Whom an export that does not serve yields to.
    fn conflict(&self) -> (Option<ExportReason>, String) {
        let names: Vec<&str> = self.exporters.iter().map(|other| other.name.as_str()).collect();
        let why = self.idle.map_or_else(|| "this export does not serve".into(), text);
        let is_granted_away = self.idle.is_some_and(|idle| idle.code == EXPORT_NOT_GRANTED);
        match (&names[..], is_granted_away) {
            ([], false) => (None, "no other cluster serves the name".into()),
            ([], true) => (Some(ExportReason::NotGranted), format!("no cluster serves it; {why}")),
            (names, granted) => {
                let reason = if granted {
                    ExportReason::NotGranted
                } else {
                    ExportReason::ExportedElsewhere
                };
                (Some(reason), format!("served by {}; {why}", names.join(", ")))
            }
        }
    }
}

fn condition(
    kind: ExportCondition,
    status: ConditionStatus,
    reason: ExportReason,
    message: String,
) -> Condition {
    Condition { kind: kind.as_str(), status, reason: reason.as_str(), message }
}

/// Regardless of their order.
fn ports(ports: &[ServicePort]) -> BTreeSet<(u16, Option<&str>, &'static str)> {
    ports.iter().map(|port| (port.port, port.name.as_deref(), port.protocol.as_str())).collect()
}

fn show(all: &[ServicePort]) -> String {
    if all.is_empty() {
        return "none".into();
    }
    let port = |(port, name, protocol): (u16, Option<&str>, &str)| match name {
        Some(name) => format!("{port} ({name}, {protocol})"),
        None => format!("{port} ({protocol})"),
    };
    ports(all).into_iter().map(port).collect::<Vec<_>>().join(" and ")
}

/// All findings of a severity as one message.
fn told(findings: &[&Diagnostic], severity: Severity) -> Option<String> {
    let of_severity = findings.iter().filter(|found| found.severity == severity);
    let texts: BTreeSet<String> = of_severity.map(|found| text(found)).collect();
    let texts: Vec<String> = texts.into_iter().collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn text(found: &Diagnostic) -> String {
    let Diagnostic { code, field, message, fix, .. } = found;
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    format!("{field}{message}; {fix} ({code})")
}
