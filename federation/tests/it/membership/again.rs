//! A joiner that dies at each step of one join, and tries again with the same token.

use federation::membership::{
    JoinProgress, Joined, MembershipError, Mode, TokenRequest, TokenText,
};
use model::code::FEDERATION_JOINED;
use tokio::sync::mpsc;

use super::site::{Cluster, request, stop_all};
use crate::fixture::{soon, until};

type Step = fn(&JoinProgress) -> bool;

/// Joins until the step is told, and dies there; or to the end, if it comes first.
async fn join_until(
    cluster: &mut Cluster,
    token: &TokenText,
    wanted: Step,
) -> Option<Result<Joined, MembershipError>> {
    let membership = cluster.membership();
    let (progress, mut steps) = mpsc::channel(32);
    let joining = async {
        let mut joining = std::pin::pin!(membership.join(token, progress));
        loop {
            tokio::select! {
                biased;
                step = steps.recv() => match step {
                    Some(step) if wanted(&step) => return None,
                    Some(_) => {}
                    None => return Some(joining.await),
                },
                ended = &mut joining => return Some(ended),
            }
        }
    };
    let ended = soon("the step, or the end", joining).await;
    // Whoever still holds a handle of a node that was stopped does not keep its store from the next one.
    cluster.stop_node().await;
    cluster.start_node().await;
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_may_die_at_any_step() {
    let east = Cluster::start("east").await;
    let inviter = east.membership();
    let founded = inviter.init().await.unwrap();
    let asking = TokenRequest { approval_needed: true, ..request("west") };
    let token = east.token(&asking).await.text;
    let mut west = Cluster::start("west").await;
    let early: [Step; 3] = [
        |step| matches!(step, JoinProgress::TokenRead(_)),
        |step| matches!(step, JoinProgress::AddressTried(_)),
        |step| matches!(step, JoinProgress::WaitingForApproval),
    ];
    for step in early {
        assert_eq!(join_until(&mut west, &token, step).await, None);
        assert_eq!(west.membership().mode(), Mode::Alone);
        assert_eq!(inviter.members().len(), 1);
        until("an empty list", || async { inviter.pending() }, Vec::is_empty).await;
    }
    // From here on the log has it, and no person is asked again.
    let own = west.membership().own();
    let person = tokio::spawn({
        let inviter = inviter.clone();
        async move {
            until("a join that waits", || async { inviter.pending() }, |rows| rows.len() == 1)
                .await;
            inviter.approve(own).unwrap();
        }
    });
    let redeemed: Step = |step| matches!(step, JoinProgress::Redeemed { .. });
    assert_eq!(join_until(&mut west, &token, redeemed).await, None);
    person.await.unwrap();
    let admitted = inviter.members().into_iter().find(|row| row.cluster == own).unwrap();
    assert!(admitted.active);
    // After the last step there is nothing left to wait for, so that it may have ended.
    let stored: Step = |step| matches!(step, JoinProgress::Stored { .. });
    if let Some(ended) = join_until(&mut west, &token, stored).await {
        assert_eq!(ended.unwrap().cluster, own);
    }
    assert_ne!(west.membership().mode(), Mode::Alone);
    let joined = west.join(&token).await.unwrap();
    assert_eq!((joined.federation, joined.cluster, joined.members), (founded.federation, own, 2));
    west.until_records("east", 1).await;
    drop(inviter);
    stop_all(vec![east, west]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_a_member_does_not_join() {
    let east = Cluster::start("east").await;
    let inviter = east.membership();
    let founded = inviter.init().await.unwrap();
    let token = east.token(&request("west")).await.text;
    let west = Cluster::start("west").await;
    let before = inviter.state().unwrap().0;
    // At the cluster that issued it.
    let refused = east.join(&token).await.unwrap_err();
    assert_eq!(refused.code(), FEDERATION_JOINED);
    let text = refused.to_string();
    assert!(text.contains("issued the token itself, for west"), "{text}");
    assert!(text.contains("run `fedctl join` at the cluster that it is for"), "{text}");
    let check = inviter.check_token(&token).await.unwrap();
    assert_eq!(check.verdict.unwrap_err().0, FEDERATION_JOINED);
    assert_eq!(inviter.state().unwrap().0, before, "nothing was changed");
    // At a member, by a token of the same federation that is another cluster's, or its own second.
    west.join(&token).await.unwrap();
    for name in ["south", "north"] {
        let other = east.token(&request(name)).await.text;
        let refused = west.join(&other).await.unwrap_err();
        assert_eq!(refused, MembershipError::AlreadyMember { federation: founded.federation });
        let rows = inviter.tokens().unwrap();
        let row = rows.iter().find(|row| row.name.as_str() == name).unwrap();
        assert_eq!(row.state, federation::membership::TokenState::Open);
    }
    assert_eq!(inviter.members().len(), 2);
    assert!(west.join(&token).await.is_ok(), "the very same join may be ended again");
    drop(inviter);
    stop_all(vec![east, west]).await;
}
