#!/usr/bin/env bash
# Builds every program that a test cluster needs from Go modules, once, into the cache folder, and
# prints the folder they are in. Takes 7 to 15 minutes with two cores; nothing when it is done already.
#
# usage: kind-e2e/scripts/tools.sh
set -euo pipefail
. "$(dirname "$0")/common.sh"

# The names under which the multi-call program is started outside of images.
kubernetes_names="etcd kube-apiserver kube-controller-manager kubectl kubeadm"

main() {
    if [ ! -e "$bin/.complete" ]; then
        mkdir -p "$bin"
        # Two that build at once would only slow each other down.
        exec 8>"$cache/tools.lock"
        flock 8
        [ -e "$bin/.complete" ] || build
    fi
    printf '%s\n' "$bin"
}

build() {
    command -v go >/dev/null || fail "Go is missing; install Go 1.21 or later, which fetches the release that go.mod names"
    cd "$kind_e2e/tools"
    check_versions
    say "building Kubernetes $KUBERNETES_VERSION, containerd, Helm and kind into $bin"
    local started=$SECONDS
    # Static, so that the same file runs on the host, in the node and in an image made from nothing.
    export CGO_ENABLED=0
    # Less work for the garbage collector; a compiler process is short.
    export GOGC=${GOGC:-400}
    nice -n 10 go build -trimpath -tags "no_btrfs no_devmapper no_zfs no_aufs" -ldflags "$(linker_flags)" -o "$bin/" \
        ./kubernetes ./runtime-wrapper ./volumes helm.sh/helm/v4/cmd/helm sigs.k8s.io/kind \
        github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr} >&2
    gcc -static -Os -s -o "$bin/pause" "$kind_e2e/node/pause.c"
    local name
    for name in $kubernetes_names; do ln -sf kubernetes "$bin/$name"; done
    touch "$bin/.complete"
    say "built in $((SECONDS - started)) s"
}

# A release built by its makers has its version linked in; clients and kubeadm read it.
linker_flags() {
    local package flags="-s -w"
    local minor=${KUBERNETES_VERSION#v1.}
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $package.gitVersion=$KUBERNETES_VERSION -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
        flags+=" -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
        flags+=" -X $package.gitCommit=0000000000000000000000000000000000000000"
    done
    printf '%s' "$flags"
}

# versions.env repeats what go.mod says, for scripts that do not ask Go.
check_versions() {
    local module wanted
    while read -r module wanted; do
        grep -qE "^\s*$module $wanted\$" go.mod || fail "versions.env has $module at $wanted, and tools/go.mod has not"
    done <<END
k8s.io/kubernetes $KUBERNETES_VERSION
github.com/containerd/containerd/v2 $CONTAINERD_VERSION
helm.sh/helm/v4 $HELM_VERSION
sigs.k8s.io/kind $KIND_VERSION
github.com/coredns/coredns $COREDNS_TAG
go.etcd.io/etcd/server/v3 v${ETCD_TAG%-*}
END
}

main "$@"
