//! The entries, in order of their numbers; those of the store are in `store.rs`.

use super::{Code, CodeEntry};

registry! {
    ENTRIES:
    1001 CONFIG_INVALID "ConfigInvalid":
        "The bootstrap configuration file was refused.",
        "A field is unknown, missing, of the wrong type or out of range.",
        "Mend the field that the message names; docs/reference/config.md lists them all.";
    1002 ADDRESS_IN_USE "AddressInUse":
        "A listener's address could not be bound.",
        "Another process holds the port, or the address is not one of this host's.",
        "Stop the other process (`ss -lntup` shows it) or choose another port.";
    1003 DATA_FOLDER_UNUSABLE "DataFolderUnusable":
        "The data folder cannot be used.",
        "It is missing, not writable, or owned by someone else.",
        "Create it, owned by the user that runs the process, with mode 0700.";
    1004 FEDERATION_UNREACHABLE "FederationUnreachable":
        "The local federation node does not answer.",
        "Its process is not running, or the socket's path or the address in the configuration is another one.",
        "Start fedgate-federation, and check `federation` in the gateway's configuration. Traffic goes on.";
    1005 OPERATOR_REFUSED "OperatorRefused":
        "The federation node refused a caller of its operator socket or port.",
        "The caller's Unix user or ServiceAccount has no role, or a lower one than the call needs.",
        "Run fedctl as the federation node's user or as root, or list the user or ServiceAccount under `operators`.";
    1006 AUDIT_BROKEN "AuditBroken":
        "The chain of the audit record is broken.",
        "A line was changed, removed or added by something else than the node, or a disk lost it.",
        "`fedctl audit verify` names each place; compare with a copy kept elsewhere, and find who could write.";
    1101 KUBECONFIG_UNUSABLE "KubeconfigUnusable":
        "No way to a Kubernetes cluster could be read from the kubeconfig.",
        "There is no such file, it is damaged, or it has no context of the name that was asked for.",
        "`kubectl config get-contexts` lists what it has; name one with --kube-context.";
    1102 API_SERVER_UNREACHABLE "ApiServerUnreachable":
        "The Kubernetes API server does not answer.",
        "The cluster is down, the address in the kubeconfig is another one, or a login has expired.",
        "Try `kubectl version` with the same context; what helps there helps here.";
    1103 API_SERVER_FORBIDDEN "ApiServerForbidden":
        "The Kubernetes API server does not allow this.",
        "The kubeconfig's user lacks an RBAC rule.",
        "Ask whoever administers the cluster for the rule that the message names.";
    1104 NOT_INSTALLED "NotInstalled":
        "Fedgate is not installed in this cluster, or not where it was looked for.",
        "There is no federation pod, or it runs in another namespace.",
        "`fedctl install` installs it; --fedgate-namespace names another namespace.";
    1105 POD_NOT_READY "PodNotReady":
        "A pod of Fedgate is not ready.",
        "Its image cannot be pulled, it cannot be scheduled, or its process ends or does not answer yet.",
        "`kubectl describe pod` and `kubectl logs` of the pod that the message names say why.";
    1106 TRUST_UNPUBLISHED "TrustUnpublished":
        "The cluster's trust bundle is not in its ConfigMap.",
        "The federation node has not started yet, or may not write ConfigMap fedgate-trust.",
        "Look at the federation pod's log; gateways enrol and fedctl connects once the ConfigMap is there.";
    1107 KUBERNETES_TOO_OLD "KubernetesTooOld":
        "The cluster's Kubernetes is older than Fedgate supports.",
        "The API server's version lacks fields that the charts and the controllers use.",
        "Upgrade Kubernetes to the version that the message names.";
    1108 CRDS_MISSING "CrdsMissing":
        "Custom resource definitions are missing, or older than Fedgate needs.",
        "Those of Gateway API and of the MCS API are not part of Fedgate's charts.",
        "Install the release that the message names; without them Fedgate runs, and serves no object of those kinds.";
    1110 STORAGE_UNAVAILABLE "StorageUnavailable":
        "The federation node would get no volume.",
        "There is no default StorageClass, or the one that is named does not exist.",
        "Name one: `--set federation.persistence.storageClass=NAME`.";
    1111 UDP_EXPOSURE_UNSURE "UdpExposureUnsure":
        "Nothing shows that this cluster can expose a UDP port to other clusters.",
        "It is of no known cloud and has no load balancer that was found.",
        "Expose the gateway by NodePort or hostPort, and open that UDP port in firewalls.";
    1112 CLOCK_SKEW "ClockSkew":
        "The clock of this machine and that of the API server differ.",
        "One of the two has no time synchronisation; certificates and tokens go by the clock.",
        "Turn NTP or chrony on, on the side that is wrong.";
    1113 GATEWAY_ADDRESS_PENDING "GatewayAddressPending":
        "The gateway's Service has no address that other clusters could dial.",
        "The load balancer is not ready, there is none, or the Service is of type ClusterIP.",
        "`kubectl describe service` shows the load balancer's events; or use NodePort.";
    1114 WRITER_LEASE_LOST "WriterLeaseLost":
        "No federation node holds the Lease that lets one write to the cluster.",
        "The pod is down, or may not update the Lease.",
        "Look at the federation pod's log; until then status and derived objects stay as they are.";
    1115 HELM_FAILED "HelmFailed":
        "Helm is missing, or ended with an error.",
        "`helm` is not on the PATH, or the API server refused an object of the chart.",
        "Install Helm 3.14 or newer; `fedctl install --print-values` needs none and gives the values for your own way.";
    1116 API_SERVER_REFUSED "ApiServerRefused":
        "The Kubernetes API server refused what the federation node wrote.",
        "An admission policy or webhook forbids it, or the custom resource definitions are of another version.",
        "The message is the API server's own; it says which policy or field. The node tries again by itself.";
    1117 OBJECT_FOREIGN "ObjectForeign":
        "An object that the federation node would make is there already, and is somebody else's.",
        "It has the name that Fedgate uses, without the label `app.kubernetes.io/managed-by: fedgate`.",
        "Rename or remove the object that the message names; Fedgate leaves it alone.";
    1118 VERSIONS_DIFFER "VersionsDiffer":
        "fedctl and the federation node are of different versions.",
        "One of the two was upgraded and the other was not.",
        "Take a fedctl of the node's version; most of it works until then.";
    1119 GATEWAY_UNCONNECTED "GatewayUnconnected":
        "Gateways are not connected to the federation node, or not ready.",
        "They cannot enrol, cannot reach the node, are starting, or are draining.",
        "Look at a gateway's log, which says why; gateways that have served go on with what they have.";
    1120 GATEWAY_BEHIND "GatewayBehind":
        "A gateway serves an older revision than its federation node has.",
        "It has just changed, the gateway is busy, or its stream stands still.",
        "Run it again after a second; if it stays, the gateway's log says why it takes nothing.";
    1121 DISK_SPACE_LOW "DiskSpaceLow":
        "The disk of a data folder is nearly full.",
        "Logs, snapshots or other programs fill it; a federation node stops writing when it is full.",
        "Free some space, or move the data folder to a larger disk.";
    1122 FILE_LIMIT_LOW "FileLimitLow":
        "A process of Fedgate may open few files at once.",
        "The service was started with the shell's or the system's small limit.",
        "Set LimitNOFILE in the service's unit, or `ulimit -n` before it starts.";
    1123 UDP_BUFFER_SMALL "UdpBufferSmall":
        "The kernel allows small UDP receive buffers only.",
        "net.core.rmem_max has its default. It matters for throughput, not for whether it works.",
        "`sysctl -w net.core.rmem_max=4194304` on the machine; pods have what their node has.";
    1124 GATEWAY_OUTDATED "GatewayOutdated":
        "A gateway is older than what was asked of it.",
        "The federation node was upgraded and this gateway was not yet.",
        "Upgrade the gateway to the node's version; traffic goes on until then.";
    2001 TUNNEL_DOWN "TunnelDown":
        "There is no live tunnel to the cluster.",
        "The peer's gateway is not running, the network between drops packets, or no address answered.",
        "`fedctl links` shows the last error of each address; check that its UDP port is reachable.";
    2002 TUNNEL_SILENT "TunnelSilent":
        "The peer went silent and the tunnel was declared dead.",
        "No authenticated packet came for max(600 ms, 3 RTT + 4 var).",
        "Nothing, if the site is known to be down: the gateway keeps dialling and traffic returns by itself.";
    2003 PEER_VERSION "PeerVersion":
        "The peer speaks no tunnel version that we speak.",
        "Gateways of the two clusters are too many versions apart.",
        "Upgrade the older side.";
    2004 PEER_PROTOCOL_ERROR "PeerProtocolError":
        "The peer sent a frame that tunnel v1 does not allow.",
        "A bug on one of the two sides, or a peer that is not Fedgate.",
        "Keep the log line, which names the frame and the rule, and report it.";
    2005 TRUNCATED "Truncated":
        "A stream ended without its END frame.",
        "The peer's process or the application behind it died in the middle of a message.",
        "Look at the destination cluster's access log for the same request id.";
    2006 STALLED_READER "StalledReader":
        "The stream was reset because its reader did not read for too long while others needed the window.",
        "The client stopped reading a large response.",
        "Make the client read, or limit how much it asks for at once.";
    2007 TUNNEL_OVERLOADED "TunnelOverloaded":
        "A limit on streams or exchanges was reached; the request was not dispatched.",
        "More concurrent requests than the limits allow.",
        "Spread the load over more gateways; docs/reference/limits.md has the limit that the message names.";
    2008 DRAINING "Draining":
        "The gateway is shutting down, or cordoned.",
        "It was asked to end, and what is in progress has up to 30 s; or `fedctl drain --gateway NAME` took it out.",
        "Send to another of the cluster, or wait; `fedctl uncordon --gateway NAME` brings a cordoned one back.";
    2009 TUNNEL_FALLBACK "TunnelFallback":
        "The tunnel runs over TCP, since UDP does not pass.",
        "A firewall, a NAT or a load balancer between the two clusters drops UDP, in one direction or in both.",
        "Open the tunnel's UDP port, both ways; QUIC is tried all the while, and traffic goes back to it by itself.";
    2010 LINK_POOR "LinkPoor":
        "The way to another cluster loses packets, or its round trips are long.",
        "A line between the two is overloaded or damaged, or the way is far.",
        "`fedctl links` says which connections; `ping` and `mtr` between the machines find the hop.";
    3001 SVID_MISSING "SvidMissing":
        "This process has no SVID yet, so it is not ready.",
        "It was never enrolled, and its federation node does not answer.",
        "Start the federation node once; the SVID is then kept on disk.";
    3002 SVID_EXPIRED "SvidExpired":
        "This process's own SVID has expired.",
        "Renewal failed for a day: the federation node was away or refused.",
        "Start the federation node; the gateway renews within seconds.";
    3003 PEER_IDENTITY_REFUSED "PeerIdentityRefused":
        "The peer's certificate was refused.",
        "It is signed by another CA, of the wrong kind, expired, or of a trust domain that belongs to another cluster.",
        "Compare the ClusterPeer's trust domains and bundle with `fedctl peer` on the other cluster.";
    3004 KEY_PERMISSIONS "KeyPermissions":
        "A private key's file can be read by others.",
        "Its mode is wider than 0600.",
        "`chmod 600` the file that the message names.";
    3005 ENROLMENT_REFUSED "EnrolmentRefused":
        "The federation node refused to issue an SVID.",
        "The caller's user or ServiceAccount may not enrol, the name is taken, or the request is malformed.",
        "Run the gateway as the node's user, or list its uid or ServiceAccount under `enrolment`.";
    3006 BUNDLE_ROLLBACK "BundleRollback":
        "A trust bundle was refused: its sequence is lower than that of the one in force, or the same with other keys.",
        "Lower: an old file was put back, or old state is replayed. The same: its keys changed and its number did not.",
        "Take it again from the cluster that owns the trust domain; where the number is the same, that one \
         raises it first.";
    3007 BUNDLE_MISSING "BundleMissing":
        "The gateway has no bundle of its own trust domain, so that it cannot tell its node from others.",
        "The file `federation.bundle` is damaged or not there yet: the node writes ConfigMap fedgate-trust at start.",
        "Start the federation node and look at its log; the gateway goes on by itself once the file is there.";
    3008 TOKEN_REVIEW_UNAVAILABLE "TokenReviewUnavailable":
        "Whether a ServiceAccount's token is good could not be found out.",
        "The API server does not answer, or the federation node may not create TokenReviews.",
        "Bind the node's ServiceAccount to ClusterRole system:auth-delegator; gateways that have an SVID go on.";
    3009 SVID_RENEWAL_LATE "SvidRenewalLate":
        "A certificate is near its end and has not been renewed.",
        "Renewal begins at half of its life; since then the federation node was away or refused.",
        "Start the federation node, or look at its log and the holder's; both try again by themselves.";
    3010 AUTHORITY_EXPIRED "AuthorityExpired":
        "A trust domain has no valid signing certificate.",
        "Its cluster's CA has expired, or its new bundle has not come here.",
        "`fedctl trust list` shows it; start the node of the cluster that owns it, which publishes its bundle.";
    3011 ROTATION_TOO_EARLY "RotationTooEarly":
        "A stage of a root's rotation was refused, since it would harm somebody now.",
        "A cluster does not know the next root yet or could not be asked, or SVIDs of the old root still live.",
        "Wait until what the message names has happened and say the same again; --force goes on regardless.";
    3012 ROTATION_OUT_OF_ORDER "RotationOutOfOrder":
        "A stage of a root's rotation was asked for that is not the next one.",
        "The order is prepare, activate, revoke; revoke before activate takes the prepared root back.",
        "`fedctl trust list` shows the state of each of this cluster's roots.";
    3013 ROOT_ENDS_SOON "RootEndsSoon":
        "Of a trust domain's root half of its life, a fifth or a twentieth is left.",
        "Roots live long and do not rotate by themselves; another cluster's bundle may also be an old one.",
        "`fedctl trust rotate --stage prepare` on the cluster whose root it is begins its rotation.";
    3014 BUNDLE_ENDPOINT_FAILED "BundleEndpointFailed":
        "A trust domain's bundle endpoint gave no bundle; the last good one stays in force.",
        "The endpoint is away, its certificate is not the one that is meant, or it answers something else.",
        "See that `bundleSources` has the endpoint's URL and profile, and ask its owner; it is polled again.";
    4001 OBJECT_INVALID "ObjectInvalid":
        "An object could not be parsed and is not in service.",
        "A field is of the wrong type, missing, or not a valid name.",
        "Mend the field that the message names.";
    4002 FIELD_NOT_SERVED "FieldNotServed":
        "A field of the object is known to Kubernetes but not served by this version, or is misspelt.",
        "This version of Fedgate serves fewer fields than the kind has.",
        "Remove the field, or live without it: the rest of the object is in service.";
    4003 KIND_NOT_SERVED "KindNotServed":
        "An object of a kind that the provider does not serve was left out.",
        "The folder holds other manifests too, or the apiVersion is another one.",
        "Nothing, if it is meant for others; docs/reference/kinds.md lists the kinds served.";
    4004 DUPLICATE_OBJECT "DuplicateObject":
        "Two objects have the same kind, namespace and name; the first one is in service.",
        "The same manifest is in two files.",
        "Remove one of them.";
    4005 SERVICE_NOT_FOUND "ServiceNotFound":
        "An export, import or route names a service that does not exist here.",
        "The Service's manifest is missing, or the name differs.",
        "Create the Service in the same namespace, or mend the name.";
    4006 PORT_NOT_FOUND "PortNotFound":
        "A port is named that the service does not have.",
        "The number or name differs from the Service's or ServiceImport's ports.",
        "Use one of the ports that the message lists.";
    4007 CLUSTER_NOT_FOUND "ClusterNotFound":
        "An import or policy names a cluster that is not a peer.",
        "There is no ClusterPeer of that name.",
        "Create the ClusterPeer, or mend the name.";
    4008 TRUST_DOMAIN_CONFLICT "TrustDomainConflict":
        "Several ClusterPeers claim one trust domain, or one claims this cluster's own; no peer has it.",
        "A trust domain has exactly one owner, and nothing tells which claim is right.",
        "Leave it with the cluster that owns it; give each cluster a trust domain of its own.";
    4009 MASS_DELETE_HELD "MassDeleteHeld":
        "Most of the cluster's objects vanished at once; the removal is held for a while.",
        "An unmounted manifest folder, a namespace or CRD deleted by mistake, and an emptied API server look so.",
        "Bring the files or objects back; if the removal is meant, it takes effect when the confirm window ends.";
    4010 FILE_UNREADABLE "FileUnreadable":
        "A manifest file or folder could not be read; what was last read from it stays in service.",
        "The file is not YAML, not UTF-8, too large, or not readable by the process.",
        "Mend the file at the line that the message names, or its permissions.";
    4011 APPLIED_SHADOWED "AppliedShadowed":
        "An applied object is not in service, because the folder of manifests has the same object.",
        "The same kind, namespace and name came by `fedctl apply` and by a file; the file wins.",
        "Remove the file, or `fedctl delete` the applied object.";
    4012 APPLY_REFUSED "ApplyRefused":
        "Manifests were not taken, and nothing was changed.",
        "One of them is not YAML, has a field or kind that is not served, or is there twice.",
        "Mend what the messages name; `fedctl diff -f FILE` tries without changing anything.";
    4013 OBJECTS_LEFT_OUT "ObjectsLeftOut":
        "Kubernetes objects are not taken up, because a limit was reached.",
        "There are more objects of a kind, or larger ones, than docs/reference/limits.md has for discovery.",
        "Remove what is not needed; the others are taken up within some minutes.";
    4014 NOT_EXPORTED "NotExported":
        "The service is not exported to this cluster.",
        "No cluster exports it, or no AccessPolicy where it runs lets this cluster see it.",
        "`fedctl export NAMESPACE/SERVICE --to CLUSTER` where it runs; `fedctl why` tells which cause it is.";
    5001 ACCESS_DENIED "AccessDenied":
        "The destination cluster's policy does not allow this caller.",
        "No AccessPolicy allows the caller's cluster, trust domain or SPIFFE ID; the default is deny.",
        "Add an AccessPolicy for the ServiceExport in the cluster that exports it.";
    5002 EXPORT_WITHOUT_POLICY "ExportWithoutPolicy":
        "A service is exported but no AccessPolicy targets it, so nobody can reach it.",
        "Between clusters the default is deny.",
        "Add an AccessPolicy whose targetRefs name the ServiceExport.";
    5003 LOOP_REFUSED "LoopRefused":
        "The request had already been through this cluster, or through too many clusters.",
        "Two clusters route the same service to each other.",
        "Point the route at the cluster that runs the service.";
    7001 NO_ROUTE "NoRoute":
        "No route matches the request's host and path.",
        "The host name or path prefix is not in any HTTPRoute of this listener.",
        "`fedctl services` lists what can be reached; add an HTTPRoute.";
    7002 NO_ENDPOINT "NoEndpoint":
        "No cluster has a ready endpoint for the service.",
        "All pods are down, or every cluster that exports it is unreachable.",
        "`fedctl services` and `fedctl links` show which.";
    7003 UPSTREAM_CONNECT "UpstreamConnect":
        "The application's endpoint refused the connection.",
        "The process behind the endpoint is not listening.",
        "Check the application in the destination cluster.";
    7004 UPSTREAM_RESET "UpstreamReset":
        "The application closed the connection before its response was complete.",
        "It crashed, or timed out the connection.",
        "Check the application's log for the same time.";
    7005 DEADLINE "Deadline":
        "No response came within the request's time limit.",
        "The application or the path to it is too slow.",
        "`fedctl links` shows the round-trip time; then look at the application.";
    7006 ROUTE_NOT_ACCEPTED "RouteNotAccepted":
        "A route is not attached to any listener.",
        "Its parentRefs name no Gateway or listener that accepts it.",
        "Mend parentRefs, or the listener's protocol and hostname.";
    7007 LISTENER_CONFLICT "ListenerConflict":
        "Two listeners want the same port, or one port would need two protocols.",
        "Listeners are distinct by port and protocol.",
        "Give one of them another port.";
    7008 ROUTE_CONFLICT "RouteConflict":
        "Two routes match the same host and path; the first one is in service.",
        "Two HTTPRoutes (or TCPRoutes on one listener) overlap exactly.",
        "Remove one of them, or make one more specific.";
    7009 BAD_REQUEST "BadRequest":
        "The request itself is malformed.",
        "No Host header, a host with illegal characters, or headers beyond the limits.",
        "Mend the client.";
    7010 NOT_YET "NotYet":
        "The destination has not yet heard of a change that the source already serves.",
        "A route or export is younger than a second or two.",
        "Nothing: the gateway retries by itself.";
    7011 REF_NOT_PERMITTED "RefNotPermitted":
        "A route leads to a backend of another namespace, and no ReferenceGrant there permits it.",
        "The backend's namespace has no ReferenceGrant, or it names another kind, namespace or backend.",
        "The owner of the backend's namespace creates a ReferenceGrant, or the route moves there.";
    7012 BACKEND_UNRESOLVED "BackendUnresolved":
        "The route of this request or connection leads to no backend that it may use.",
        "The backend or its port does not exist, it speaks another protocol, or no ReferenceGrant permits it.",
        "`fedctl diagnostics` and the route's condition ResolvedRefs name the backend; create it, or mend the route.";
    7013 CLUSTER_CORDONED "ClusterCordoned":
        "No new exchanges are sent to a cluster.",
        "An operator cordoned or drained it, here or in the cluster itself.",
        "`fedctl clusters` says since when and why; `fedctl uncordon CLUSTER` lets exchanges flow again.";
}
