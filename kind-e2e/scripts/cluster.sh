#!/usr/bin/env bash
# Makes or removes one of the clusters east, west and south: Kubernetes of one node each, pods and
# Services in ranges that no two share, tokens of an issuer of its own, the custom resource definitions
# of Gateway API and MCS API. `up` prints the path of the kubeconfig, whose context is kind-NAME, and
# leaves a cluster that is there alone.
#
# usage: kind-e2e/scripts/cluster.sh up NAME | down NAME
set -euo pipefail
. "$(dirname "$0")/common.sh"

wait_for_ready=180s

main() {
    [ $# -eq 2 ] || fail "usage: cluster.sh up NAME | down NAME"
    name=$2
    case $name in
    east) number=1 ;;
    west) number=2 ;;
    south) number=3 ;;
    *) fail "unknown cluster $name; the clusters are east, west and south" ;;
    esac
    mkdir -p "$cache/kubeconfig"
    export KUBECONFIG=$cache/kubeconfig/$name
    if ! has_system_tools; then
        "$kind_e2e/scripts/tools.sh" >/dev/null
        export PATH="$bin:$PATH"
    fi
    refuse_others
    case $1 in
    up) up ;;
    down) down ;;
    *) fail "unknown verb $1; use up or down" ;;
    esac
}

# The names are common; a person's own cluster of the same name is not in our network.
refuse_others() {
    local networks
    networks=$(docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}' \
        "$name-control-plane" 2>/dev/null) || return 0
    case " $networks " in *" $KIND_EXPERIMENTAL_DOCKER_NETWORK "*) return 0 ;; esac
    # A node whose network a test took away is in none.
    [ -n "${networks// /}" ] || return 0
    fail "there is a kind cluster $name that these scripts did not make, in the network $networks; remove or rename it"
}

up() {
    if ! is_up; then
        # Half a cluster, such as one whose engine was killed, is made again.
        kind delete cluster --quiet --name "$name"
        local started=$SECONDS
        create
        say "$name is ready after $((SECONDS - started)) s"
        "$kind_e2e/scripts/crds.sh"
    fi
    printf '%s\n' "$KUBECONFIG"
}

down() {
    kind delete cluster --quiet --name "$name"
    rm -f "$KUBECONFIG" "$KUBECONFIG.lock"
}

is_up() { [ -s "$KUBECONFIG" ] && kubectl get --raw /readyz --request-timeout 5s >/dev/null 2>&1; }

create() {
    local own_node=false image=()
    if ! has_system_tools; then
        own_node=true
        image=(--image "$("$kind_e2e/scripts/node-image.sh")")
    fi
    sed "s#@NAME@#$name#; s#@OWN_NODE@#$own_node#; s#@PODS@#10.$number.0.0/16#; s#@SERVICES@#10.$((100 + number)).0.0/16#" \
        "$kind_e2e/node/cluster.yaml" |
        kind create cluster --name "$name" "${image[@]}" --config - --wait $wait_for_ready >"$cache/kind-$name.log" 2>&1 || {
        cat "$cache/kind-$name.log" >&2
        fail "kind made no cluster $name; its words are above"
    }
    # kind's own wait ends when the node is Ready, which is before names resolve.
    kubectl wait --namespace kube-system deployment/coredns --for condition=Available --timeout $wait_for_ready >/dev/null
}

main "$@"
