//! The entries of the store and of membership, in order of their numbers.

use super::{Code, CodeEntry};

registry! {
    STORE_ENTRIES:
    6101 COMMAND_INVALID "CommandInvalid":
        "A command to the federation store could not be read.",
        "It is malformed, too large, or of a kind that this version does not know.",
        "Upgrade the older side; if both are of one version, report it with the message's text.";
    6102 SIGNATURE_REFUSED "SignatureRefused":
        "A signature of a record of the federation is missing or wrong.",
        "It was altered on the way, made by another key, or by a key that was closed before.",
        "Look at who sent it: `fedctl store verify --all` names every record whose signature does not hold.";
    6103 NOT_OWNER "NotOwner":
        "A cluster tried to write what another cluster owns.",
        "Each cluster writes records of its own only.",
        "Look at the cluster that sent it; its federation key may be in wrong hands.";
    6104 GENERATION_STALE "GenerationStale":
        "A Head is not newer than the one in force.",
        "An old Head was sent again, or two federation nodes of one cluster write at once.",
        "Nothing, if it happens once: the writer reads the Head in force and publishes again.";
    6105 EPOCH_WRONG "EpochWrong":
        "A Head is of another epoch than its cluster's Member record.",
        "The cluster was restored or reinstalled and its Member was not signed again, or old state is replayed.",
        "Bump the epoch in the cluster that was restored: `fedctl store recover`.";
    6106 DIGEST_WRONG "DigestWrong":
        "The records of a cluster are not those that its Head was signed for.",
        "Records were withheld, altered or mixed on the way, or the writer started from an old set.",
        "Nothing, if it happens once: the writer publishes its whole set again. Otherwise `fedctl store verify --all`.";
    6107 QUOTA_EXCEEDED "QuotaExceeded":
        "A cluster's records are beyond its quota in the federation store.",
        "It exports more services, or larger ones, than the limit that the message names.",
        "Export less; docs/reference/limits.md lists the quotas.";
    6108 NOT_A_MEMBER "NotAMember":
        "The cluster is not a member of this federation.",
        "It never joined, has left, or was revoked.",
        "Join it with a token: `fedctl token issue` in a member, then `fedctl join` in the cluster.";
    6109 OTHER_FEDERATION "OtherFederation":
        "A record belongs to another federation, or there is none here yet.",
        "Two federations were started separately, or this node was never initialised.",
        "`fedctl init` starts a federation, `fedctl join` enters one; a node is in one only.";
    6110 ROLE_MISSING "RoleMissing":
        "The member may not do this: it lacks the role, or its delegation does not reach so deep.",
        "Admitting needs the role admit and a delegation depth of at least 1; revoking needs admin.",
        "Ask a member that has the role; `fedctl store peers` shows roles.";
    6111 TOKEN_UNKNOWN "TokenUnknown":
        "The join token is not one of this federation's.",
        "It was never issued here, or expired so long ago that it was forgotten.",
        "Issue a new one: `fedctl token issue`.";
    6112 TOKEN_EXPIRED "TokenExpired":
        "The join token has expired.",
        "It is valid for 15 minutes unless it was issued otherwise.",
        "Issue a new one: `fedctl token issue`.";
    6113 TOKEN_USED "TokenUsed":
        "The join token was used already.",
        "A token lets one cluster in, once.",
        "Issue a new one. If nobody of yours used it, revoke the member that did: `fedctl revoke`.";
    6114 TOKEN_REVOKED "TokenRevoked":
        "The join token was revoked.",
        "Somebody ran `fedctl token revoke`.",
        "Issue a new one: `fedctl token issue`.";
    6115 TOKEN_MISMATCH "TokenMismatch":
        "What the joining cluster asks for is not what its token grants.",
        "The name, roles, delegation depth or issuer differ from those of the token.",
        "Join with the values of the token, or issue another one.";
    6116 NAME_TAKEN "NameTaken":
        "A member of the federation has this name already.",
        "Cluster names are unique in a federation.",
        "Choose another name, or let the other cluster leave first.";
    6117 TRUST_DOMAIN_TAKEN "TrustDomainTaken":
        "Another member of the federation owns this trust domain.",
        "A trust domain has exactly one owner.",
        "Give each cluster a trust domain of its own.";
    6118 MEMBER_REVOKED "MemberRevoked":
        "The cluster, its trust domain or its key was revoked.",
        "An administrator ran `fedctl revoke`.",
        "A revoked key never comes back: reinstall the cluster's federation node and join with a new token.";
    6119 MEMBER_CHANGE_REFUSED "MemberChangeRefused":
        "A change of a Member record is not allowed.",
        "Some field may only be changed by others, or not at all, or the change starts from an old record.",
        "The message names the field and who may change it.";
    6120 LAST_ADMIN "LastAdmin":
        "The last member with the role admin cannot leave while others stay.",
        "Without an admin nobody could revoke a member or grant a namespace any more.",
        "Give another member the role admin first, or let the others leave before.";
    6121 STORE_TABLE_FULL "StoreTableFull":
        "A table of the federation store is full.",
        "There are more members, tokens or revocations than the limit that the message names.",
        "Revoke tokens that nobody needs; docs/reference/limits.md lists the limits.";
    6122 STATE_DAMAGED "StateDamaged":
        "What the disk holds of the federation's state does not verify.",
        "A file was altered or damaged.",
        "Remove the node's store folder, so that it fetches its state again, or `fedctl store snapshot restore`.";
    6123 EVENT_OUT_OF_ORDER "EventOutOfOrder":
        "A watch event does not follow the one before.",
        "Events were lost, repeated or reordered on the way.",
        "Nothing: the watcher begins anew. If it goes on, look at the node that it watches.";
    6124 EVENT_REFUSED "EventRefused":
        "A watch event carries what its owner did not sign.",
        "A leaf hash was withheld, or records were altered, left out or mixed on the way.",
        "The state before stays in service. Watch another node, and run `fedctl store verify --all`.";
    6125 ROLLED_BACK "RolledBack":
        "Something older than what was seen before was offered.",
        "Old state is replayed, or the store was restored from a backup without a new epoch.",
        "After a restore bump the epoch: `fedctl store recover`. Otherwise look at the node that sent it.";
    6126 EXPORT_CONFLICT "ExportConflict":
        "Another cluster exported a service of this name first, so this export does not serve.",
        "Without a NamespaceGrant the first exporter of a name serves.",
        "Rename the service, or let an administrator grant the namespace to both: `fedctl namespace grant`.";
    6127 EXPORT_NOT_GRANTED "ExportNotGranted":
        "The namespace is granted to other clusters, so this export does not serve.",
        "A NamespaceGrant covers the namespace and does not name the exporting cluster.",
        "Add the cluster to the grant: `fedctl namespace grant`.";
    6128 EXPORT_PORTS_DIFFER "ExportPortsDiffer":
        "Clusters that export one service disagree on a port.",
        "The same port has another protocol or name than in the oldest export, whose word counts (KEP-1645).",
        "Make the Service's ports the same in all exporting clusters.";
    6129 LOCAL_OBJECT_WINS "LocalObjectWins":
        "A local object and one from the federation have the same key; the local one is in service.",
        "A manifest from before the cluster joined is still there.",
        "Remove the local manifest.";
    6130 GRANT_WITHOUT_ROLE "GrantWithoutRole":
        "A NamespaceGrant does not count, since its owner is not an administrator of the federation.",
        "Only members with the role admin grant namespaces.",
        "Create the grant in a cluster with the role admin.";
    6301 FEDERATION_NONE "FederationNone":
        "This cluster is in no federation.",
        "It was neither founded here nor joined, or the cluster has left.",
        "Run `fedctl init` to found one, or `fedctl join TOKEN` with a token from a member.";
    6302 FEDERATION_JOINED "FederationJoined":
        "This cluster is in a federation already.",
        "A cluster is in one federation at a time.",
        "Run `fedctl leave` first.";
    6303 STORE_NO_QUORUM "StoreNoQuorum":
        "No quorum of the store's voters answered in time; reads and traffic go on.",
        "Too many voters are down or cut off.",
        "`fedctl store status` shows who is missing; bring one back, or if all are lost: `fedctl store recover`.";
    6304 TOKEN_REFUSED "TokenRefused":
        "A join token was refused.",
        "It is not a whole token, has expired, was used or revoked, or was altered on its way.",
        "Ask the inviter for a new one: `fedctl token issue`.";
    6305 JOIN_UNREACHABLE "JoinUnreachable":
        "No address led to the inviter.",
        "A firewall, a wrong advertised address, or the inviter's gateway or federation node is not running.",
        "The message lists each address and why; open the UDP port, or mend `advertise` and issue a new token.";
    6306 JOIN_UNTRUSTED "JoinUntrusted":
        "What the inviter sent does not prove that it is the federation of the token.",
        "Somebody is between the two clusters, or the token is of another federation.",
        "Compare the federation id on both sides; ask for a new token over a path that you trust.";
    6307 JOIN_NOT_PENDING "JoinNotPending":
        "No such cluster waits for approval here.",
        "It gave up, its token has expired, or it waits at another inviter.",
        "Look at the inviter that issued the token, and let the cluster try again.";
    6308 JOIN_DENIED "JoinDenied":
        "A person at the inviter denied the join.",
        "The inviter runs `fedctl token issue` with approval.",
        "Ask the inviter.";
    6309 JOIN_RATE_LIMITED "JoinRateLimited":
        "The inviter takes no more join attempts for now.",
        "Too many attempts have failed lately.",
        "Wait a minute, then try again.";
    6310 LEAVE_UNSAFE "LeaveUnsafe":
        "Leaving now would take the store's last voter with it.",
        "No other member could be reached to take over.",
        "Bring another member back first, or leave by force if the federation is to end.";
    6311 STORE_FAULT "StoreFault":
        "This node's store does not work.",
        "Its disk is damaged, full or not writable, or a change to it failed half-way.",
        "`fedctl store status` shows the problem. Free space or mend the disk: the node ends then, and its \
         service manager starts it anew.";
    6312 MEMBERSHIP_BUSY "MembershipBusy":
        "Another founding, join, leave or restore is in progress on this node.",
        "Two operators, or one whose first command still waits.",
        "Wait for the first one to end, then look at `fedctl store status`.";
    6313 STORE_ROOM_LOW "StoreRoomLow":
        "The disk of the federation node's data is nearly full.",
        "Something fills it: other data on the same disk, or a volume that is too small.",
        "Free space there, or make the volume larger; without room the store stops taking writes.";
    6401 SPLIT_VIEW "SplitView":
        "A cluster signed two different contents as one generation.",
        "Its federation key is in two places or wrong hands, or its node tells members different histories.",
        "Compare the two signed Heads that are kept as evidence, and revoke the cluster: `fedctl revoke`.";
    6402 RECORDS_WITHHELD "RecordsWithheld":
        "A member does not deliver what other members hold.",
        "It withholds records, or is itself cut off from the store's leader.",
        "Nothing for readers: they take another source. Look at the named member: `fedctl store status` there.";
    6403 WATCH_SOURCE_LOST "WatchSourceLost":
        "No member serves this cluster the federation's state at the moment.",
        "None is reachable, or all of them were refused for what they sent.",
        "Nothing for traffic: the last verified state serves. `fedctl store peers` shows why members are silent.";
    6404 OWNER_STALE "OwnerStale":
        "Nothing new was heard of a cluster for a while.",
        "Its federation node is down, or cut off from here on every path.",
        "Start its federation node or mend the network; until then its last state stays in service.";
    6405 OWNER_WITHDRAWN "OwnerWithdrawn":
        "A cluster's exports are out of service because it was not heard of for too long.",
        "For a day, unless configured otherwise, there was neither a word of its owner nor a live tunnel to it.",
        "Nothing if it is gone: `fedctl leave` or `fedctl revoke` removes it. It is back once it is heard of.";
}
