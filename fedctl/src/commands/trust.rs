//! `fedctl trust` and `fedctl certs`: who is believed until when, and roots one after the other.

use jiff::Timestamp;
use serde::Serialize;
use wire::operator::proto::{
    AuthorityStatus, CertificateStatus, ListCertificatesRequest, ListTrustRequest, RevokedSvid,
    Roots, RotateCertificatesRequest, RotateTrustRequest, RotationStage as Stage, TrustStatus,
};

use crate::cli::{RotationStage, TrustRotate};
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::Printer;
use crate::view::{List, Until};

const TRUST: [&str; 6] =
    ["TRUST DOMAIN", "CLUSTER", "SEQUENCE", "AUTHORITIES", "VALID", "REVOKED SVIDS"];
const ROOTS: [&str; 4] = ["STATE", "SHA-256", "VALID", "ITS SVIDS END IN"];
const CERTS: [&str; 4] = ["PART", "HOLDER", "VALID", "SPIFFE ID"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TrustView {
    trust_domain: String,
    cluster: String,
    own: bool,
    sequence: u64,
    authorities: Vec<AuthorityView>,
    /// SVIDs that the cluster denies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    revoked_svids: Vec<RevokedSvidView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RevokedSvidView {
    spiffe_id: String,
    /// Those of this name that begin earlier are refused.
    good_from: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthorityView {
    sha256: String,
    expires: Option<Until>,
    /// Of the own cluster's: active, prepared or old.
    #[serde(skip_serializing_if = "String::is_empty")]
    state: String,
    /// The end of the last SVID that an old one has signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    svids_end: Option<Until>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateView {
    part: String,
    holder: String,
    spiffe_id: String,
    expires: Option<Until>,
}

pub(super) async fn list(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let trust = node.list_trust(ListTrustRequest {}).await?.trust;
    let list = trust_views(trust, Timestamp::now());
    printer.result(&list, |list| list.table(&TRUST, trust_row))
}

fn trust_views(trust: Vec<TrustStatus>, now: Timestamp) -> List<TrustView> {
    let views = trust.into_iter().map(|row| TrustView {
        authorities: row.authorities.iter().map(|one| authority_view(one, now)).collect(),
        trust_domain: row.trust_domain,
        cluster: row.cluster,
        own: row.own,
        sequence: row.sequence,
        revoked_svids: row.revoked_svids.into_iter().map(revoked_view).collect(),
    });
    List::new("TrustList", String::new(), views.collect())
}

fn authority_view(authority: &AuthorityStatus, now: Timestamp) -> AuthorityView {
    AuthorityView {
        sha256: authority.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect(),
        expires: Until::unix_ms(authority.not_after_unix_s.saturating_mul(1000), now),
        state: authority.state.clone(),
        svids_end: Until::unix_ms(authority.svids_until_unix_s.saturating_mul(1000), now),
    }
}

fn revoked_view(revoked: RevokedSvid) -> RevokedSvidView {
    let good_from = i64::try_from(revoked.not_before_unix_s).ok();
    let good_from = good_from.and_then(|seconds| Timestamp::from_second(seconds).ok());
    RevokedSvidView {
        spiffe_id: revoked.spiffe_id,
        good_from: good_from.map_or_else(String::new, |time| time.to_string()),
        reason: revoked.reason,
    }
}

/// Without the trust domain, which is the row's.
fn path(revoked: &RevokedSvidView) -> &str {
    let rest = revoked.spiffe_id.strip_prefix("spiffe://").unwrap_or(&revoked.spiffe_id);
    rest.find('/').map_or(rest, |at| &rest[at..])
}

fn short(authority: &AuthorityView) -> String {
    authority.sha256.chars().take(16).collect()
}

fn trust_row(row: &TrustView) -> Vec<String> {
    let own = if row.own { " *" } else { "" };
    let named = |authority: &AuthorityView| match &*authority.state {
        "" | "active" => short(authority),
        state => format!("{} ({state})", short(authority)),
    };
    let authorities: Vec<String> = row.authorities.iter().map(named).collect();
    let last = row.authorities.iter().filter_map(|authority| authority.expires.as_ref());
    let last = last.max_by_key(|until| until.left_ms).map(Until::shown);
    vec![
        row.trust_domain.clone(),
        format!("{}{own}", row.cluster),
        row.sequence.to_string(),
        if authorities.is_empty() { "none".into() } else { authorities.join(", ") },
        last.unwrap_or_else(|| "-".into()),
        match &row.revoked_svids[..] {
            [] => "-".into(),
            revoked => revoked.iter().map(path).collect::<Vec<_>>().join(", "),
        },
    ]
}

pub(super) async fn rotate(
    args: &TrustRotate,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let (stage, next) = match args.stage {
        RotationStage::Prepare => (
            Stage::Prepare,
            "Next, when every cluster has read it: fedctl trust rotate --stage activate\n\
             Clusters that know this one by a manifest need it anew: fedctl peer",
        ),
        RotationStage::Activate => (
            Stage::Activate,
            "Next, when the old root's SVIDs have ended: fedctl trust rotate --stage revoke",
        ),
        RotationStage::Revoke => (Stage::Revoke, "The rotation is over."),
    };
    let request = RotateTrustRequest { stage: stage.into(), force: args.force };
    let list = root_views(&node.rotate_trust(request).await?, Timestamp::now());
    printer.result(&list, |list| list.table(&ROOTS, root_row))?;
    printer.talk(next);
    Ok(())
}

fn root_views(roots: &Roots, now: Timestamp) -> List<AuthorityView> {
    let views = roots.roots.iter().map(|root| authority_view(root, now));
    List::new("RootList", format!("bundle sequence {}", roots.sequence), views.collect())
}

fn root_row(row: &AuthorityView) -> Vec<String> {
    let shown = |until: &Option<Until>| until.as_ref().map_or_else(|| "-".into(), Until::shown);
    vec![row.state.clone(), short(row), shown(&row.expires), shown(&row.svids_end)]
}

pub(super) async fn renew(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let rotated = node.renew_svids(RotateCertificatesRequest {}).await?;
    let rows = rotated.certificate.into_iter().collect();
    let list = certificate_views(rows, Timestamp::now());
    printer.result(&list, |list| list.table(&CERTS, certificate_row))?;
    if rotated.new_root {
        printer.talk(
            "The root had run out and is another one. Clusters of the federation read it by \
             themselves if they can still be reached; others need this cluster's ClusterPeer anew: \
             fedctl peer\nGateways get new SVIDs by themselves within seconds.",
        );
    }
    Ok(())
}

pub(super) async fn certs(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let certificates = node.list_certificates(ListCertificatesRequest {}).await?.certificates;
    let list = certificate_views(certificates, Timestamp::now());
    printer.result(&list, |list| list.table(&CERTS, certificate_row))
}

fn certificate_views(rows: Vec<CertificateStatus>, now: Timestamp) -> List<CertificateView> {
    let views = rows.into_iter().map(|row| CertificateView {
        expires: Until::unix_ms(row.not_after_unix_s.saturating_mul(1000), now),
        part: row.part,
        holder: row.holder,
        spiffe_id: row.spiffe_id,
    });
    List::new("CertificateList", String::new(), views.collect())
}

fn certificate_row(row: &CertificateView) -> Vec<String> {
    vec![
        row.part.clone(),
        row.holder.clone(),
        row.expires.as_ref().map_or_else(|| "-".into(), Until::shown),
        row.spiffe_id.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    fn now() -> Timestamp {
        "2026-01-01T03:00:00Z".parse().unwrap()
    }

    fn in_hours(hours: i64) -> u64 {
        u64::try_from(now().as_second() + hours * 3600).unwrap()
    }

    #[test]
    fn trust_is_listed_as_golden() {
        let row = |domain: &str, cluster: &str, own, hours: &[i64]| TrustStatus {
            trust_domain: domain.into(),
            cluster: cluster.into(),
            own,
            sequence: 3,
            authorities: hours
                .iter()
                .map(|hours| AuthorityStatus {
                    fingerprint: vec![0xa5; 32],
                    not_after_unix_s: in_hours(*hours),
                    ..AuthorityStatus::default()
                })
                .collect(),
            revoked_svids: Vec::new(),
        };
        let stolen = RevokedSvid {
            spiffe_id: "spiffe://west.example/fedgate/gateway/gw-0".into(),
            not_before_unix_s: in_hours(0),
            reason: String::new(),
        };
        let list = trust_views(
            vec![
                row("east.example", "east", true, &[24 * 3650]),
                TrustStatus {
                    revoked_svids: vec![stolen],
                    ..row("west.example", "west", false, &[11, 48])
                },
                row("south.example", "south", false, &[]),
            ],
            now(),
        );
        golden::check("trust-list.txt", &list.table(&TRUST, trust_row));
        golden::check("trust-list.json", &serde_json::to_string_pretty(&list).unwrap());
    }

    #[test]
    fn roots_are_listed_as_golden() {
        let root = |byte: u8, state: &str, until| AuthorityStatus {
            fingerprint: vec![byte; 32],
            not_after_unix_s: in_hours(24 * 3650),
            state: state.into(),
            svids_until_unix_s: until,
        };
        let roots = vec![root(1, "active", 0), root(2, "old", in_hours(24))];
        let list = root_views(&Roots { sequence: 7, roots }, now());
        golden::check("trust-rotate.txt", &list.table(&ROOTS, root_row));
        golden::check("trust-rotate.json", &serde_json::to_string_pretty(&list).unwrap());
    }

    #[test]
    fn certificates_are_listed_as_golden() {
        let row = |part: &str, holder: &str, hours| CertificateStatus {
            part: part.into(),
            spiffe_id: format!("spiffe://east.example/fedgate/{part}/{holder}"),
            not_before_unix_s: 0,
            not_after_unix_s: if hours == 0 { 0 } else { in_hours(hours) },
            holder: holder.into(),
        };
        let rows = vec![
            row("federation", "node-0", 23),
            row("gateway", "gw-0", -1),
            row("gateway", "gw-1", 0),
        ];
        let list = certificate_views(rows, now());
        golden::check("certs-list.txt", &list.table(&CERTS, certificate_row));
    }
}
