#!/usr/bin/env bash
# Makes the image of a machine without Kubernetes: Debian of the release that this host has, for which
# our package is built, with systemd. Prints its tag; nothing is built when it is there. Needs root and a
# Docker engine (engine.sh).
#
# usage: kind-e2e/scripts/machine-image.sh
set -euo pipefail
. "$(dirname "$0")/common.sh"

# What docs/guide/three-machines.md takes for granted on a machine, and what a person who looks inside
# wants.
packages=systemd,systemd-sysv,dbus,ca-certificates,curl,iproute2,jq,logrotate,procps,python3,util-linux

main() {
    release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    [ "$(. /etc/os-release && printf '%s' "$ID")" = debian ] || fail "this host is no Debian, for which a package could be built"
    image=fedgate-kind/machine:$release-$(content_key machine scripts/machine-image.sh)
    mkdir -p "$cache"
    exec 7>"$cache/machine-image.lock"
    flock 7
    if ! docker image inspect "$image" >/dev/null 2>&1; then
        local started=$SECONDS
        work=$(mktemp -d "$cache/machine-image.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        debian_image "$release" "$packages"
        build
        say "built $image in $((SECONDS - started)) s"
    fi
    printf '%s\n' "IMAGE=$image"
}

build() {
    cp -r "$kind_e2e/machine" "$work/machine"
    sed -i "s#@DEBIAN@#$debian#" "$work/machine/Dockerfile"
    docker build --quiet --network none --tag "$image" "$work/machine" >"$work/build.log" 2>&1 || {
        cat "$work/build.log" >&2
        fail "docker build failed; its words are above"
    }
    docker images --format '{{.Repository}}:{{.Tag}}' fedgate-kind/machine | grep -vxF "$image" |
        xargs --no-run-if-empty docker rmi >/dev/null 2>&1 || true
}

main "$@"
