#!/usr/bin/env bash
# Makes our images from nothing but programs that are built already, and loads them into clusters:
# `fedgate` (fedgate-federation, fedgate-gateway, fedctl) and `fedgate-testapp`. Their tags are made
# of their content, so that a cluster never runs an older one of the same name. Prints NAME=IMAGE.
# With --beside only `fedgate`, and older images stay: what is there is about to be upgraded, or to be
# rolled back.
#
# usage: kind-e2e/scripts/images.sh [--beside] FOLDER_OF_PROGRAMS [CLUSTER...]
set -euo pipefail
. "$(dirname "$0")/common.sh"

programs="fedgate-federation fedgate-gateway fedctl"
user=65532

main() {
    beside=
    if [ "${1:-}" = --beside ]; then beside=1; shift; fi
    [ $# -ge 1 ] || fail "usage: images.sh [--beside] FOLDER_OF_PROGRAMS [CLUSTER...]"
    folder=$1
    shift
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/images.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    fedgate
    [ -n "$beside" ] || testapp
    if ! has_system_tools; then export PATH="$bin:$PATH"; fi
    local cluster
    for cluster; do
        # shellcheck disable=SC2086
        kind load docker-image --quiet --name "$cluster" "$fedgate_image" ${testapp_image:-} >&2
        [ -n "$beside" ] || forget_older "$cluster"
    done
    printf '%s\n' "FEDGATE=$fedgate_image" "TESTAPP=${testapp_image:-}"
}

# Each build leaves 140 MB in each node. Images of pods that are there stay: they may be started again.
forget_older() {
    local node=$1-control-plane images
    images=$(kubectl --kubeconfig "$cache/kubeconfig/$1" get pods --all-namespaces \
        --output 'jsonpath={range .items[*].spec.containers[*]}{.image}{"\n"}{end}')
    images=$(printf '%s\n' "$images" "$fedgate_image" "$testapp_image" | sed 's#^[^/]*$#docker.io/library/&#' | sort -u)
    docker exec "$node" ctr --namespace k8s.io images list --quiet |
        grep -E '^docker.io/library/fedgate(-testapp)?:' | grep -vxF "$images" |
        xargs --no-run-if-empty docker exec "$node" ctr --namespace k8s.io images rm --sync >/dev/null 2>&1 || true
    # Unpacked layers are all that containers need; packed ones as well would double the space.
    docker exec "$node" ctr --namespace k8s.io content prune references >/dev/null 2>&1 || true
}

# Our programs are linked with glibc and libstdc++, which come from the machine that linked them.
fedgate() {
    local root=$work/fedgate/root program
    mkdir -p "$root"/usr/bin
    for program in $programs; do
        [ -x "$folder/$program" ] || fail "$folder/$program is missing; build it, or name the folder it is in"
        # Debugging information is ten times the program.
        strip --strip-unneeded -o "$root/usr/bin/$program" "$folder/$program"
        copy_libraries "$folder/$program" "$root"
    done
    system_files "$root"
    fedgate_image=$(build_image fedgate /usr/bin/fedgate-federation)
}

testapp() {
    local root=$work/fedgate-testapp/root
    mkdir -p "$root"
    (cd "$kind_e2e/testapp" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$root/testapp" .)
    system_files "$root"
    testapp_image=$(build_image fedgate-testapp /testapp)
}

# The loader knows best which libraries a program loads; it prints itself too.
copy_libraries() {
    local library
    for library in $(ldd "$1" | grep -o '/[^ ]*'); do
        mkdir -p "$2$(dirname "$library")"
        cp --dereference "$library" "$2$library"
    done
}

# What libraries and operators expect in any file system.
system_files() {
    mkdir -p "$1/etc/ssl/certs" "$1/tmp"
    chmod 1777 "$1/tmp"
    printf 'root:x:0:0:root:/:/\nfedgate:x:%s:%s:fedgate:/:/\n' $user $user >"$1/etc/passwd"
    printf 'root:x:0:\nfedgate:x:%s:\n' $user >"$1/etc/group"
    # Names resolve by /etc/hosts and DNS; glibc has both built in.
    printf 'hosts: files dns\n' >"$1/etc/nsswitch.conf"
    cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
}

# Builds an image of $work/NAME/root unless there is one with the same content, and prints its name.
build_image() {
    local name=$1 entrypoint=$2 content image
    content=$(cd "$work/$name/root" && { find . -type f -print0 | sort --zero-terminated | xargs --null sha256sum
        find . -type f -printf '%m %p\n' | sort; printf '%s\n' "$entrypoint"; } | sha256sum | cut -c1-16)
    image=$name:$content
    if ! docker image inspect "$image" >/dev/null 2>&1; then
        printf 'FROM scratch\nCOPY root/ /\nUSER %s:%s\nENTRYPOINT ["%s"]\n' $user $user "$entrypoint" >"$work/$name/Dockerfile"
        docker build --quiet --network none --tag "$image" "$work/$name" >"$work/build.log" 2>&1 || {
            cat "$work/build.log" >&2
            fail "docker build of $name failed; its words are above"
        }
        say "built $image"
        # Nobody asks for an older content again.
        [ -n "$beside" ] || docker images --format '{{.Repository}}:{{.Tag}}' "$name" | grep -vxF "$image" |
            xargs --no-run-if-empty docker rmi >/dev/null 2>&1 || true
    fi
    printf '%s' "$image"
}

main "$@"
