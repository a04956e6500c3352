#!/usr/bin/env bash
# Makes the image of a cluster's node without any image registry: Debian's packages, our build of
# Kubernetes, and the images of the control plane already in containerd's store. Prints its tag;
# nothing is built when it is there. Needs root and a Docker engine (engine.sh).
#
# usage: kind-e2e/scripts/node-image.sh
set -euo pipefail
. "$(dirname "$0")/common.sh"

registry=registry.k8s.io
# What kubelet, kube-proxy and the network plugins call, and what a person who looks inside wants.
packages=systemd,systemd-sysv,dbus,kmod,mount,util-linux,procps,runc,containernetworking-plugins,iptables
packages+=,nftables,conntrack,iproute2,ethtool,socat,ca-certificates,curl,jq

main() {
    key=$(content_key node scripts/node-image.sh)
    image=fedgate-kind/node:$KUBERNETES_VERSION-$(basename "$cache" | cut -d- -f2)-$key
    mkdir -p "$cache"
    # Clusters that are made side by side ask for it at once.
    exec 7>"$cache/node-image.lock"
    flock 7
    if ! docker image inspect "$image" >/dev/null 2>&1; then
        "$kind_e2e/scripts/tools.sh" >/dev/null
        local started=$SECONDS
        work=$(mktemp -d "$cache/node-image.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        build
        say "built $image in $((SECONDS - started)) s"
    fi
    printf '%s\n' "$image"
}

build() {
    debian_image "$DEBIAN_RELEASE" "$packages"
    mkdir -p "$work"/{control-plane,pause,node}
    control_plane_images
    node_base
    preload
    remove_older
}

# One image with the multi-call program has the names of all images that kubeadm asks for.
control_plane_images() {
    local root=$work/control-plane/root name
    mkdir -p "$root/usr/local/bin" "$root/tmp"
    chmod 1777 "$root/tmp"
    # kube-proxy writes its rules with nft; the program is copied with the libraries it loads.
    docker run --rm --network none --entrypoint sh "$debian" -c \
        'tar -chf - /usr/sbin/nft $(ldd /usr/sbin/nft | grep -o "/[^ ]*")' 2>/dev/null | tar -C "$root" -xf -
    ln "$bin/kubernetes" "$root/usr/local/bin/"
    for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy etcd coredns; do
        ln -s kubernetes "$root/usr/local/bin/$name"
    done
    # kubeadm starts CoreDNS by the image's entrypoint, the others by their names.
    printf 'FROM scratch\nCOPY root/ /\nENTRYPOINT ["/usr/local/bin/coredns"]\n' >"$work/control-plane/Dockerfile"
    cp "$bin/pause" "$work/pause/"
    printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' >"$work/pause/Dockerfile"

    control_plane=("$registry"/kube-{apiserver,controller-manager,scheduler,proxy}:"$KUBERNETES_VERSION"
        "$registry/etcd:$ETCD_TAG" "$registry/coredns/coredns:$COREDNS_TAG")
    pause=$registry/pause:$PAUSE_TAG
    docker_build "${control_plane[@]/#/--tag=}" "$work/control-plane"
    docker_build --tag="$pause" "$work/pause"
}

# Debian with the programs, units and settings of a node.
node_base() {
    local files=$work/node/files name
    mkdir -p "$files"/{usr/local/bin,etc/containerd,etc/systemd/system,etc/sysctl.d,kind/manifests}
    ln "$bin"/{kubernetes,containerd,containerd-shim-runc-v2,ctr,volumes} "$files/usr/local/bin/"
    for name in kubelet kubeadm kubectl; do ln -s kubernetes "$files/usr/local/bin/$name"; done
    install -m 755 "$kind_e2e"/node/{entrypoint,cgroups-for-kubelet} "$files/usr/local/bin/"
    sed "s/@PAUSE_TAG@/$PAUSE_TAG/" "$kind_e2e/node/containerd.toml" >"$files/etc/containerd/config.toml"
    cp "$kind_e2e/node/network.json.template" "$files/etc/containerd/"
    cp "$kind_e2e"/node/*.service "$files/etc/systemd/system/"
    cp "$kind_e2e/node/sysctl.conf" "$files/etc/sysctl.d/10-node.conf"
    # Where kind reads the release and the default storage class.
    cp "$kind_e2e/node/default-storage.yaml" "$files/kind/manifests/"
    printf '%s' "$KUBERNETES_VERSION" >"$files/kind/version"
    sed "s#@DEBIAN@#$debian#" "$kind_e2e/node/Dockerfile" >"$work/node/Dockerfile"
    docker_build --tag=fedgate-kind/node:base "$work/node"
}

# Puts the images into the store of the node's containerd. That needs containerd to run and mounts to
# be made, which a build may not, so it happens in a container that becomes the image.
preload() {
    docker save --output "$work/images.tar" "${control_plane[@]}" "$pause"
    local container=fedgate-kind-preload
    docker rm --force $container >/dev/null 2>&1 || true
    docker run --detach --name $container --privileged --network none --entrypoint /bin/sleep fedgate-kind/node:base 600 >/dev/null
    docker exec --detach $container sh -c 'exec containerd >/tmp/containerd.log 2>&1'
    local attempt
    for attempt in $(seq 100); do
        ! docker exec $container ctr version >/dev/null 2>&1 || break
        sleep 0.2
    done
    docker exec --interactive $container ctr --namespace k8s.io images import --all-platforms --digests - \
        <"$work/images.tar" >/dev/null || fail "containerd did not import the images of the control plane"
    # Until it is gone, its database is not on disk.
    docker exec $container sh -c 'pkill -x containerd; while pgrep -x containerd; do sleep 0.1; done >/dev/null
        rm -rf /run/containerd /tmp/*'
    docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' $container "$image" >/dev/null
    docker rm --force $container >/dev/null
}

# Images of other versions are large, and made again when they are needed. One in use stays.
remove_older() {
    docker rmi "${control_plane[@]}" "$pause" fedgate-kind/node:base >/dev/null
    docker images --format '{{.Repository}}:{{.Tag}}' fedgate-kind/node | grep -vxF "$image" |
        xargs --no-run-if-empty docker rmi >/dev/null 2>&1 || true
}

# The classic builder tells each step; its words matter only when it fails.
docker_build() {
    docker build --quiet --network none "$@" >"$work/build.log" 2>&1 || {
        cat "$work/build.log" >&2
        fail "docker build failed; its words are above"
    }
}

main "$@"
