//! Pings, as operators ask for them.

use std::time::Duration;

use model::ClusterName;
use model::code::{CLUSTER_NOT_FOUND, GATEWAY_UNCONNECTED};
use tonic::{Code, Status as GrpcStatus};
use wire::operator::proto::{self, PingClusterRequest, Pings, gateway_ping::Outcome};
use wire::resource::limits::{PING_GRACE_MS, PING_PROBES_MAX};
use wire::resource::{PingAnswer, PingRequest};

use super::{Operator, cordons};
use crate::gateways::{GatewayPing, PingProblem};
use crate::refusal::refuse;

pub(super) async fn ping(
    node: &Operator,
    request: PingClusterRequest,
) -> Result<Pings, GrpcStatus> {
    let PingClusterRequest { cluster, probes } = request;
    let cluster = ClusterName::parse(&cluster)
        .map_err(|error| GrpcStatus::invalid_argument(format!("cluster: {error}")))?;
    if !(1..=PING_PROBES_MAX).contains(&probes) {
        let text = format!("probes = {probes}: send 1 to {PING_PROBES_MAX}");
        return Err(GrpcStatus::invalid_argument(text));
    }
    if cluster == node.cluster {
        let text = format!(
            "{cluster} is this cluster, to which there is no tunnel; name another one of `fedctl clusters`"
        );
        return Err(refuse(Code::InvalidArgument, CLUSTER_NOT_FOUND, text));
    }
    if !cordons::is_peer(node, &cluster) {
        let text = format!("{cluster} is no peer of this cluster; `fedctl clusters` lists them");
        return Err(refuse(Code::NotFound, CLUSTER_NOT_FOUND, text));
    }
    let gateways = node.gateways.ping(&cluster, probes, patience(probes)).await;
    let gone = |ping: &GatewayPing| ping.links == Err(PingProblem::Unconnected);
    if gateways.iter().all(gone) {
        let text = "no gateway is connected to this node, so nobody can measure; start one, its log says \
                    what hinders it";
        return Err(refuse(Code::FailedPrecondition, GATEWAY_UNCONNECTED, text));
    }
    Ok(Pings { gateways: gateways.into_iter().map(encode).collect() })
}

/// How long a gateway is waited for.
fn patience(probes: u32) -> Duration {
    PingRequest::longest(probes) + Duration::from_millis(PING_GRACE_MS.into())
}

fn encode(ping: GatewayPing) -> proto::GatewayPing {
    let outcome = match ping.links {
        Ok(links) => Outcome::Answer(PingAnswer { id: 0, links: Ok(links) }.encode()),
        Err(problem) => Outcome::Problem(proto::PingProblem {
            code: problem.code().map_or(0, |code| code.number().into()),
            text: problem.to_string(),
            fix: problem.fix().into(),
            timed_out: matches!(problem, PingProblem::Silent(_)),
        }),
    };
    proto::GatewayPing {
        gateway: ping.gateway.to_string(),
        version: ping.version,
        outcome: Some(outcome),
    }
}
