#!/usr/bin/env bash
# Starts a real etcd and kube-apiserver on loopback ports, without nodes: enough to see what
# controllers write, what a schema or RBAC refuses, and what TokenRequest and TokenReview say. Prints
# the path of a kubeconfig of an administrator. Everything is in DIR; `down` ends both and removes it.
# No controller runs: no garbage collection, no endpoints, no ServiceAccount `default` in namespaces.
#
# usage: kind-e2e/scripts/api-server.sh up DIR | down DIR
set -euo pipefail
. "$(dirname "$0")/common.sh"

# A port that somebody took between our look and the server's start is the only usual failure.
attempts=5
start_timeout_s=60

main() {
    [ $# -eq 2 ] || fail "usage: api-server.sh up DIR | down DIR"
    case $1 in
    up) up "$2" ;;
    down) down "$2" ;;
    *) fail "unknown verb $1; use up or down" ;;
    esac
}

up() {
    "$kind_e2e/scripts/tools.sh" >/dev/null
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    export KUBECONFIG=$dir/kubeconfig
    [ ! -e "$dir/kube-apiserver.pid" ] || fail "$dir holds a server already; take it down first"
    make_keys
    local attempt
    for attempt in $(seq $attempts); do
        if start; then
            PATH="$bin:$PATH" "$kind_e2e/scripts/crds.sh"
            printf '%s\n' "$KUBECONFIG"
            return
        fi
        say "attempt $attempt failed"
        stop "$dir"
    done
    tail -n 20 "$dir"/*.log >&2
    fail "neither server came up in $attempts attempts; their last words are above"
}

down() {
    stop "$1"
    # Only what `up` made.
    rm -rf "$1"/{etcd,keys,etcd.log,kube-apiserver.log,kubeconfig,kubeconfig.lock}
    rmdir "$1" 2>/dev/null || true
}

# Starts both on fresh ports and waits until the API is ready.
start() {
    local etcd_port peer_port api_port
    etcd_port=$(free_port) peer_port=$(free_port) api_port=$(free_port)
    rm -rf "$dir/etcd"
    run etcd --name test --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
        --listen-peer-urls "http://127.0.0.1:$peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" \
        --initial-cluster "test=http://127.0.0.1:$peer_port"
    # The admission plugin ServiceAccount would refuse pods, because nobody makes ServiceAccounts `default`.
    run kube-apiserver --etcd-servers "http://127.0.0.1:$etcd_port" \
        --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --secure-port "$api_port" \
        --tls-cert-file "$dir/keys/server.crt" --tls-private-key-file "$dir/keys/server.key" \
        --client-ca-file "$dir/keys/ca.crt" --authorization-mode Node,RBAC \
        --service-account-issuer https://kubernetes.default.svc.cluster.local \
        --service-account-key-file "$dir/keys/service-account.key" \
        --service-account-signing-key-file "$dir/keys/service-account.key" \
        --service-cluster-ip-range 10.96.0.0/16 --allow-privileged --endpoint-reconciler-type none \
        --disable-admission-plugins ServiceAccount
    write_kubeconfig "$api_port"
    local deadline=$((SECONDS + start_timeout_s))
    until "$bin/kubectl" get --raw /readyz >/dev/null 2>&1; do
        is_alive etcd && is_alive kube-apiserver && [ $SECONDS -lt $deadline ] || return 1
        sleep 0.3
    done
}

# Starts a program that outlives this script, its output in a file and its process id in another.
run() {
    local program=$1
    shift
    setsid nohup "$bin/$program" "$@" >"$dir/$program.log" 2>&1 </dev/null 7>&- 8>&- 9>&- &
    echo $! >"$dir/$program.pid"
}

is_alive() { kill -0 "$(cat "$dir/$1.pid")" 2>/dev/null; }

# The API server first, so that it does not complain about its etcd.
stop() {
    local program pid
    for program in kube-apiserver etcd; do
        [ -e "$1/$program.pid" ] || continue
        pid=$(cat "$1/$program.pid")
        # A process id may have been given to somebody else since.
        if grep -qz "$program" "/proc/$pid/cmdline" 2>/dev/null; then
            # Nothing of it is kept, so it needs no time to end.
            kill -KILL "$pid" 2>/dev/null || true
        fi
        rm -f "$1/$program.pid"
    done
}

# A port below those that the kernel gives to clients, and on which nobody listens.
free_port() {
    local port
    while port=$(shuf -i 20000-32000 -n 1); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            printf '%s' "$port"
            return
        fi
    done
}

# An authority, a certificate for the server, one for an administrator, and the key that signs the
# tokens of ServiceAccounts.
make_keys() {
    mkdir -p "$dir/keys"
    (
        cd "$dir/keys"
        umask 077
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
            -subj /CN=test-authority -keyout ca.key -out ca.crt
        sign server "/CN=kube-apiserver" "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc"
        sign admin "/O=system:masters/CN=admin" "extendedKeyUsage=clientAuth"
        openssl genrsa -out service-account.key 2048
    ) 2>"$dir/keys/openssl.log" || fail "openssl failed: $(cat "$dir/keys/openssl.log")"
}

sign() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr"
    printf '%s\n' "$3" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.crt"
}

write_kubeconfig() {
    local kubectl="$bin/kubectl config"
    rm -f "$KUBECONFIG"
    {
        $kubectl set-cluster test --server "https://127.0.0.1:$1" --certificate-authority "$dir/keys/ca.crt" --embed-certs
        $kubectl set-credentials admin --client-certificate "$dir/keys/admin.crt" --client-key "$dir/keys/admin.key" --embed-certs
        $kubectl set-context test --cluster test --user admin
        $kubectl use-context test
    } >/dev/null
}

main "$@"
