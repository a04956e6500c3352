#!/usr/bin/env bash
# Applies the custom resource definitions of Gateway API and MCS API to a cluster and waits until they
# are served. They come from the Go module cache, where go.sum guarantees for their content.
#
# usage: KUBECONFIG=FILE kind-e2e/scripts/crds.sh [kubectl flags, such as --context NAME]
set -euo pipefail
. "$(dirname "$0")/common.sh"

main() {
    command -v go >/dev/null || fail "Go is missing; it fetches the definitions and checks them"
    cd "$kind_e2e/crds"
    local module version
    while read -r module version; do
        grep -qE "^\s*$module $version\$" go.mod || fail "versions.env has $module at $version, and crds/go.mod has not"
    done <<END
sigs.k8s.io/gateway-api $GATEWAY_API_VERSION
sigs.k8s.io/mcs-api $MCS_API_VERSION
END
    go mod download
    # TCPRoute, TLSRoute and UDPRoute are in the standard channel of this release.
    local files=()
    mapfile -t files < <(ls "$(folder sigs.k8s.io/gateway-api)"/config/crd/standard/*.yaml \
        "$(folder sigs.k8s.io/mcs-api)"/config/crd/*.yaml)
    # On the server, because the client's annotation with the last configuration would be too large.
    kubectl "$@" apply --server-side --field-manager cluster-owner "${files[@]/#/--filename=}" >/dev/null
    kubectl "$@" wait --for condition=Established --timeout 60s crd --all >/dev/null
    say "Gateway API $GATEWAY_API_VERSION and MCS API $MCS_API_VERSION are installed"
}

folder() { go list -m -f '{{.Dir}}' "$1"; }

main "$@"
