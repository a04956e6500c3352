//! The ways back: from a snapshot file, and from one node's own data when the others are lost.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use federation::membership::{
    LeaveRequest, MembershipError, Mode, RevokeRequest, RevokeTarget, StoreRole, StoreView,
};
use federation::store::{Disk as _, Family, RocksDisk, Step, inspect_snapshot};
use tokio::time::timeout;

use super::site::{Cluster, federation, request, stop_all};
use crate::fixture::{EXPORT, Gateway, SERVICE, until};

const FENCED: &str = "the store was recovered without this node";

fn view(cluster: &Cluster) -> StoreView {
    cluster.membership().store_status().unwrap()
}

async fn until_three_vote(clusters: &[Cluster]) {
    for cluster in &clusters[..3] {
        cluster.until_mode(Mode::Member).await;
    }
    let voters = || async { view(&clusters[0]).voters.len() };
    until("three voters", voters, |count| *count == 3).await;
}

async fn until_fenced(cluster: &Cluster) {
    let problem = || async { view(cluster).problem.unwrap_or_default() };
    until("word of the new store", problem, |problem| problem.contains(FENCED)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_saved_verified_inspected_and_restored() {
    let clusters = federation(&["east", "west", "south", "north"]).await;
    until_three_vote(&clusters).await;
    let (east, north) = (&clusters[0], &clusters[3]);
    east.write("a.yaml", SERVICE);
    east.write("b.yaml", EXPORT);
    east.until_records("east", 2).await;
    let member = east.membership();
    let path = east.path("snapshot");
    let saved = member.save_snapshot(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(member.verify_snapshot(&path).await.unwrap(), saved);
    let info = inspect_snapshot(&path).unwrap();
    assert_eq!((info.revision, info.digest, info.voters.len()), (saved.revision, saved.digest, 3));
    let refused = north.membership().save_snapshot(&path).await.unwrap_err().to_string();
    assert!(refused.contains("this node is a Replica"), "{refused}");

    // A file that was touched is refused before anything is changed.
    let epoch = saved.revision.epoch;
    let touched = east.path("touched");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&touched, bytes).unwrap();
    for refused in [
        member.verify_snapshot(&touched).await.map(|_| ()),
        member.restore(&touched).await.map(|_| ()),
    ] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("its hash is not the one in its header"), "{refused}");
    }
    assert_eq!(view(east).voters.len(), 3);

    let later = east.token(&request("later")).await;
    let known = || member.tokens().unwrap().iter().any(|row| row.id == later.id);
    assert!(known());
    let restored = member.restore(&path).await.unwrap();
    assert!(restored.epoch > epoch, "{restored} after epoch {epoch}");
    until("the state of the file", || async { known() }, |known| !known).await;
    let after = view(east);
    assert_eq!((after.role, after.voters), (StoreRole::Leader, vec![east.name.clone()]));
    // The others do not follow what they never agreed to, and say so.
    until_fenced(&clusters[1]).await;
    until_fenced(&clusters[2]).await;
    assert_eq!(view(east).role, StoreRole::Leader);
    // Writes go on, and again: each new store has an epoch of its own.
    let kept = east.token(&request("kept")).await;
    assert!(kept.revision > restored);
    let again = member.restore(&path).await.unwrap();
    assert!(again.epoch > restored.epoch, "{again} after {restored}");
    east.write("b.yaml", &EXPORT.replace("name: api", "name: gone"));
    east.until_records("east", 1).await;
    drop(member);
    stop_all(clusters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_of_use_to_its_members_only() {
    let mut lone = Cluster::prepare("east");
    lone.start_node().await;
    let path = lone.path("snapshot");
    let member = lone.membership();
    assert_eq!(member.save_snapshot(&path).await.unwrap_err(), MembershipError::Alone);
    assert_eq!(member.recover().await.unwrap_err(), MembershipError::Alone);
    assert!(!path.exists());
    member.init().await.unwrap();
    member.save_snapshot(&path).await.unwrap();
    let mut other = Cluster::prepare("west");
    other.start_node().await;
    let refused = other.membership().restore(&path).await.unwrap_err().to_string();
    assert!(refused.contains("is no active member in the snapshot"), "{refused}");
    assert_eq!(other.membership().mode(), Mode::Alone);
    drop(member);
    stop_all(vec![lone, other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_voter_goes_on_alone_and_old_ones_do_not_depose_it() {
    let mut clusters = federation(&["east", "west", "south"]).await;
    until_three_vote(&clusters).await;
    let before = clusters[0].token(&request("before")).await;
    clusters[1].stop_node().await;
    clusters[2].stop_node().await;
    let east = clusters[0].membership();
    let role = || async { view(&clusters[0]).leader };
    until("that nobody leads", role, Option::is_none).await;
    let recovered = east.recover().await.unwrap();
    assert!(recovered.epoch > before.revision.epoch);
    assert!(east.tokens().unwrap().iter().any(|row| row.id == before.id));
    let after = clusters[0].token(&request("after")).await;
    let alone = view(&clusters[0]);
    assert_eq!((alone.role, alone.voters.len()), (StoreRole::Leader, 1));

    // They were not lost after all, and are a quorum of the old store.
    clusters[1].start_node().await;
    clusters[2].start_node().await;
    until_fenced(&clusters[1]).await;
    until_fenced(&clusters[2]).await;
    let now = view(&clusters[0]);
    assert_eq!((now.role, now.term), (StoreRole::Leader, alone.term));
    let last = clusters[0].token(&request("last")).await;
    assert_eq!(last.revision.epoch, after.revision.epoch);
    // There is a way back for them: they leave what is no more, and join anew.
    east.remove(&clusters[1].name).await.unwrap();
    let west = clusters[1].membership();
    let leave = LeaveRequest { drain: None, force: true };
    west.leave(leave).await.unwrap();
    let token = clusters[0].token(&request("west")).await;
    clusters[1].join(&token.text).await.unwrap();
    clusters[1].until_members(3).await;
    drop((east, west));
    stop_all(clusters).await;
}

/// On a federation's one voter it may be all that is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_kept_beside_before_it_is_emptied() {
    let mut east = Cluster::prepare("east");
    east.start_node().await;
    east.membership().init().await.unwrap();
    east.stop_node().await;
    let store = east.path("data/store");
    let (key, mut value) = {
        let disk = RocksDisk::open(&store).unwrap();
        disk.last(Family::Log).unwrap().unwrap()
    };
    *value.last_mut().unwrap() ^= 1;
    let put = Step::Put { family: Family::Log, key: key.clone(), value: value.clone() };
    let damage = |steps| RocksDisk::open(&store).unwrap().write(steps, true).unwrap();
    damage(vec![put.clone()]);
    east.start_node().await;
    let refused = east.membership().issue_token(request("west")).await.unwrap_err().to_string();
    assert!(refused.contains("it was damaged, and nothing of it is left"), "{refused}");
    east.stop_node().await;
    let kept = RocksDisk::open(&east.path("data/store.damaged-1")).unwrap();
    assert_eq!(kept.last(Family::Log).unwrap(), Some((key, value)), "as it was, damage included");
    drop(kept);

    // A disk that does this again and again is not trusted for ever, and nothing is overwritten.
    for number in 2..=4 {
        std::fs::create_dir(east.path(&format!("data/store.damaged-{number}"))).unwrap();
    }
    damage(vec![put]);
    let refused = east.try_start_node().await.unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("4 damaged stores are kept"), "{refused}");
    assert!(refused.contains("replace it, or move them"), "{refused}");
}

fn damage_replica(store: &std::path::Path) {
    let disk = RocksDisk::open(store).unwrap();
    let state = disk.scan(Family::Replica, b"s", Some(b"t"), usize::MAX).unwrap();
    let flip = |(key, mut value): (Vec<u8>, Vec<u8>)| {
        *value.last_mut().unwrap() ^= 1;
        Step::Put { family: Family::Replica, key, value }
    };
    assert!(!state.is_empty());
    disk.write(state.into_iter().map(flip).collect(), true).unwrap();
}

/// It still knows whom it spoke with, and believes them as one that has just joined.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_damaged_state_fetches_it_anew() {
    let mut clusters = federation(&["east", "west"]).await;
    clusters[1].until_contacts().await;
    clusters[1].stop_node().await;
    damage_replica(&clusters[1].path("data/store"));
    clusters[1].start_node().await;
    clusters[1].until_mode(Mode::Replica).await;
    clusters[1].until_members(2).await;
    stop_all(clusters).await;
}

/// With its contacts a Replica has lost all by which it could find the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_damaged_state_is_not_alone() {
    let mut clusters = federation(&["east", "west"]).await;
    let west = &mut clusters[1];
    assert_eq!(west.membership().mode(), Mode::Replica);
    west.until_contacts().await;
    west.stop_node().await;
    damage_replica(&west.path("data/store"));
    std::fs::remove_dir_all(west.path("data/contacts")).unwrap();
    west.start_node().await;
    let member = west.membership();
    let token = clusters[0].token(&request("other")).await;
    let lost = "it was damaged, and nothing of it is left; `fedctl leave --force`, then join anew; \
                gateways keep what they have till then";
    let refusals = [
        member.init().await.map(|_| ()),
        clusters[1].join(&token.text).await.map(|_| ()),
        member.issue_token(request("other")).await.map(|_| ()),
        member.leave(LeaveRequest::default()).await.map(|_| ()),
    ];
    for refused in refusals {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(lost), "{refused}");
    }
    // A gateway that asks now is told nothing, rather than something without the federation.
    clusters[1].stop_gateway().await;
    let mut gateway = Gateway::subscribe_in(clusters[1].node(), "west", "gw-1").await;
    assert!(timeout(Duration::from_secs(1), gateway.next()).await.is_err());

    member.leave(LeaveRequest { drain: None, force: true }).await.unwrap();
    assert_eq!(member.mode(), Mode::Alone);
    gateway.next().await;
    drop(gateway);
    clusters[1].start_gateway().await;
    clusters[0].membership().remove(&clusters[1].name).await.unwrap();
    let token = clusters[0].token(&request("west")).await;
    clusters[1].join(&token.text).await.unwrap();
    clusters[0].until_members(2).await;
    drop(member);
    stop_all(clusters).await;
}

/// While no quorum can log it, a revocation is in force on the nodes that have heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_is_not_logged_yet_outlasts_a_restart() {
    let mut clusters = federation(&["east", "west", "south"]).await;
    until_three_vote(&clusters).await;
    clusters[1].stop_node().await;
    clusters[2].stop_node().await;
    let east = clusters[0].membership();
    let target = RevokeTarget::Cluster(clusters[2].name.clone());
    let request = RevokeRequest { target, reason: "stolen".into(), reanchor: Vec::new() };
    let revoked = east.revoke(request).await.unwrap();
    assert_eq!((revoked.revision, revoked.told), (None, Vec::new()));
    drop(east);
    clusters[0].stop_node().await;
    let kept = || std::fs::read_dir(clusters[0].path("data/revocations")).unwrap().count();
    assert_eq!(kept(), 1);
    clusters[0].start_node().await;
    // Nobody but the node that was restarted can tell the log.
    clusters[1].start_node().await;
    clusters[1].until_members(2).await;
    clusters[0].until_members(2).await;
    let kept =
        || async { std::fs::read_dir(clusters[0].path("data/revocations")).unwrap().count() };
    until("the file's end", kept, |count| *count == 0).await;
    stop_all(clusters).await;
}
