//! `fedctl leave` and `fedctl revoke`: out of the federation, in peace or not.

use wire::operator::proto::{
    LeaveRequest, MemberStatus, RemoveMemberRequest, RevokeRequest, RevokeSvidRequest, Revoked,
    RevokedSvidStatus, revoke_request, revoke_svid_request::Target,
};

use super::members;
use crate::cli::{Leave, Revoke};
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{Printer, ask, can_ask};
use crate::view::revision;

pub(super) async fn leave(
    args: Leave,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    if let Some(name) = args.name {
        confirm(args.yes, &format!("Take {name} out of the federation?"))?;
        let changed = node.remove_member(RemoveMemberRequest { name: name.clone() }).await?;
        let at = revision(changed.revision);
        printer.talk(&format!("{name} is out of the federation (revision {at})."));
        printer.talk("It may join again by a new token.");
        return Ok(());
    }
    confirm(args.yes, "Take this cluster out of the federation?")?;
    let drain_ms = args.drain.map(|drain| u64::try_from(drain.as_millis()).unwrap_or(u64::MAX));
    if let Some(drain) = args.drain {
        let seconds = drain.as_secs();
        printer.talk(&format!("Exports are withdrawn; leaving in {seconds} s ..."));
    }
    let left = node.leave(LeaveRequest { drain_ms, force: args.force }).await?;
    printer.talk(&match left.revision {
        Some(at) => format!("Left the federation (revision {}).", revision(Some(at))),
        None => "Left the federation. Nobody could be told: a member should run fedctl leave NAME."
            .into(),
    });
    Ok(())
}

pub(super) async fn revoke(
    args: Revoke,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let Revoke { cluster, trust_domain, gateway, spiffe_id, reason, reanchor, also, yes } = args;
    let svid = gateway.map(Target::Gateway).or_else(|| spiffe_id.map(Target::SpiffeId));
    if let Some(target) = svid {
        return revoke_svid(target, reason, yes, node, printer).await;
    }
    if let Some(domain) = trust_domain {
        confirm(yes, &format!("Shut the trust domain {domain} out?"))?;
        let target = Some(revoke_request::Target::TrustDomain(domain.clone()));
        let revoked = node.revoke(RevokeRequest { target, reason, reanchor: vec![] }).await?;
        printer.talk(&told(&format!("trust domain {domain}"), &revoked));
        return Ok(());
    }
    let cluster = cluster.unwrap_or_default();
    let admitted = members::fetch(node, &cluster).await?;
    let choice = Choice { reanchor, also }.complete(&cluster, &admitted, printer)?;
    confirm(yes, &format!("Shut {} out?", choice.all(&cluster).join(", ")))?;
    // Its own children first: when it is revoked, nobody answers for them any more.
    for name in choice.all(&cluster).into_iter().rev() {
        let reanchor = if name == cluster { choice.reanchor.clone() } else { vec![] };
        let target = Some(revoke_request::Target::Cluster(name.clone()));
        let revoked =
            node.revoke(RevokeRequest { target, reason: reason.clone(), reanchor }).await?;
        printer.talk(&told(&name, &revoked));
    }
    Ok(())
}

async fn revoke_svid(
    target: Target,
    reason: String,
    yes: bool,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let what = match &target {
        Target::Gateway(name) => format!("gateway {name}"),
        Target::SpiffeId(id) => id.clone(),
    };
    let question = format!(
        "Refuse every SVID of {what} that was issued up to now? Its connections end; it is back with a \
         new SVID in a moment."
    );
    confirm(yes, &question)?;
    let request = RevokeSvidRequest { target: Some(target), reason };
    printer.talk(&svid_told(&node.revoke_svid(request).await?));
    Ok(())
}

fn svid_told(status: &RevokedSvidStatus) -> String {
    let id = status.revoked.as_ref().map_or("", |revoked| &revoked.spiffe_id);
    let mut text = match status.revision {
        Some(at) => format!(
            "SVIDs of {id} that were issued up to now are refused (revision {}).",
            revision(Some(at))
        ),
        None if status.alone => format!(
            "SVIDs of {id} that were issued up to now are refused in this cluster. It is in no \
             federation: no other cluster hears of it, and each accepts them until they end (24 h at most)."
        ),
        None => format!(
            "SVIDs of {id} that were issued up to now are refused in this cluster. The store has no \
             quorum to log it: other clusters accept them until it has."
        ),
    };
    if status.unseen {
        text.push_str("\nNote: the node has heard of no gateway of this name since its start.");
    }
    text
}

/// What becomes of the clusters that the revoked one had admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Choice {
    reanchor: Vec<String>,
    also: Vec<String>,
}

impl Choice {
    /// Checks the options, and asks about whom they do not name.
    fn complete(
        mut self,
        cluster: &str,
        admitted: &[MemberStatus],
        printer: &Printer,
    ) -> Result<Self, CommandError> {
        let open = self.open(cluster, admitted)?;
        if open.is_empty() {
            return Ok(self);
        }
        let names = open.join(", ");
        if !can_ask() {
            let message = format!("{cluster} had admitted {names}: do they stay?");
            return Err(CommandError::usage(message)
                .hint("name each of them with --reanchor (stays) or --also (is revoked too)"));
        }
        printer.talk(&format!("{cluster} had admitted {names}."));
        for name in open {
            match ask(&format!("Does {name} stay, with this cluster as its issuer?")) {
                true => self.reanchor.push(name),
                false => self.also.push(name),
            }
        }
        Ok(self)
    }

    /// Admitted clusters that neither option names.
    fn open(&self, cluster: &str, admitted: &[MemberStatus]) -> Result<Vec<String>, CommandError> {
        for name in self.reanchor.iter().chain(&self.also) {
            if !admitted.iter().any(|member| member.name == *name) {
                let known: Vec<&str> = admitted.iter().map(|member| &*member.name).collect();
                let known = if known.is_empty() { "nobody".into() } else { known.join(", ") };
                return Err(CommandError::usage(format!("{cluster} did not admit {name}"))
                    .hint(format!("it had admitted {known}")));
            }
        }
        if let Some(name) = self.reanchor.iter().find(|name| self.also.contains(name)) {
            return Err(CommandError::usage(format!("{name} is both in --reanchor and in --also"))
                .hint("leave one of the two out"));
        }
        let named = |name: &String| self.reanchor.contains(name) || self.also.contains(name);
        let names = admitted.iter().map(|member| member.name.clone());
        Ok(names.filter(|name| !named(name)).collect())
    }

    /// Whom to revoke, the one that was named first.
    fn all(&self, cluster: &str) -> Vec<String> {
        std::iter::once(cluster.to_string()).chain(self.also.clone()).collect()
    }
}

fn told(whom: &str, revoked: &Revoked) -> String {
    let mut text = match revoked.revision {
        Some(at) => format!("{whom} is shut out (revision {}).", revision(Some(at))),
        None => format!(
            "{whom} is shut out here and by everybody told; the store has no quorum to log it yet."
        ),
    };
    if !revoked.untold.is_empty() {
        let untold = revoked.untold.join(", ");
        text.push_str(&format!("\nNot told yet, and tried again: {untold}"));
    }
    text
}

/// Asks, unless told not to; without a terminal nobody can be asked.
pub(super) fn confirm(yes: bool, question: &str) -> Result<(), CommandError> {
    if yes {
        return Ok(());
    }
    if !can_ask() {
        return Err(CommandError::usage(format!("{question} Nobody can be asked here"))
            .hint("add --yes if it is meant"));
    }
    match ask(question) {
        true => Ok(()),
        false => Err(CommandError::failed("nothing was done, as you did not say yes")),
    }
}

#[cfg(test)]
mod tests {
    use wire::operator::proto::RevokedSvid;

    use super::*;

    fn admitted() -> Vec<MemberStatus> {
        let member = |name: &str| MemberStatus { name: name.into(), ..MemberStatus::default() };
        vec![member("west"), member("south")]
    }

    fn choice(reanchor: &[&str], also: &[&str]) -> Choice {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Choice { reanchor: names(reanchor), also: names(also) }
    }

    #[test]
    fn everybody_it_had_admitted_is_decided_on() {
        assert_eq!(choice(&[], &[]).open("east", &admitted()).unwrap(), ["west", "south"]);
        assert_eq!(choice(&["west"], &[]).open("east", &admitted()).unwrap(), ["south"]);
        let whole = choice(&["west"], &["south"]);
        assert!(whole.open("east", &admitted()).unwrap().is_empty());
        assert_eq!(whole.all("east"), ["east", "south"]);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let error = choice(&["north"], &[]).open("east", &admitted()).unwrap_err().to_string();
        assert!(error.contains("did not admit north") && error.contains("west, south"), "{error}");
        let error = choice(&["west"], &["west"]).open("east", &admitted()).unwrap_err().to_string();
        assert!(error.contains("both in --reanchor and in --also"), "{error}");
    }

    #[test]
    fn a_revocation_says_who_does_not_know_yet() {
        let logged = Revoked {
            revision: Some(wire::resource::proto::Revision { epoch: 1, index: 7 }),
            told: vec!["west".into()],
            untold: vec!["south".into()],
        };
        let want = "east is shut out (revision 1.7).\nNot told yet, and tried again: south";
        assert_eq!(told("east", &logged), want);
        let alone = Revoked { revision: None, ..Revoked::default() };
        assert!(told("east", &alone).contains("no quorum"));
    }

    #[test]
    fn a_revoked_svid_says_how_far_the_word_has_come() {
        let revoked = RevokedSvid {
            spiffe_id: "spiffe://east.fed/fedgate/gateway/gw-0".into(),
            ..RevokedSvid::default()
        };
        let status = |revision, alone, unseen| {
            svid_told(&RevokedSvidStatus {
                revoked: Some(revoked.clone()),
                revision,
                alone,
                unseen,
            })
        };
        let at = Some(wire::resource::proto::Revision { epoch: 1, index: 7 });
        let want = "SVIDs of spiffe://east.fed/fedgate/gateway/gw-0 that were issued up to now are \
                    refused (revision 1.7).";
        assert_eq!(status(at, false, false), want);
        assert!(status(None, false, false).contains("no quorum"));
        assert!(status(None, true, false).contains("in no federation"));
        assert!(status(at, false, true).ends_with("no gateway of this name since its start."));
    }
}
