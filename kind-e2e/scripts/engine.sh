#!/usr/bin/env bash
# Provides a Docker engine for kind. If none answers, starts one, with its data in the cache folder;
# `down` ends that one, and never another. Needs root for it.
#
# usage: kind-e2e/scripts/engine.sh up|down
set -euo pipefail
. "$(dirname "$0")/common.sh"

start_timeout_s=60
data=$cache_root/kind-engine

main() {
    case ${1:-} in
    up) up ;;
    down) down ;;
    *) fail "usage: engine.sh up|down" ;;
    esac
}

up() {
    if ! docker info >/dev/null 2>&1; then
        [ "$(id -u)" -eq 0 ] || fail "no Docker engine answers, and starting one needs root"
        "$kind_e2e/../scripts/setup.sh" engine
        start
    fi
    docker network inspect "$KIND_EXPERIMENTAL_DOCKER_NETWORK" >/dev/null 2>&1 ||
        docker network create --driver bridge --subnet $network_range --ip-range $network_dynamic_range \
            "$KIND_EXPERIMENTAL_DOCKER_NETWORK" >/dev/null
}

start() {
    # Each node's systemd, kubelet and containerd want inotify instances; the default of 128 is used up
    # by the second cluster.
    sysctl -qw fs.inotify.max_user_instances=1024 net.ipv4.ip_forward=1
    mkdir -p $engine_run "$data"
    write_configuration
    # Without the locks that our callers hold: it outlives them.
    setsid nohup dockerd --config-file "$data/daemon.json" --host unix://$engine_run/docker.sock \
        --pidfile $engine_run/dockerd.pid >"$data/dockerd.log" 2>&1 </dev/null 7>&- 8>&- 9>&- &
    export DOCKER_HOST=unix://$engine_run/docker.sock
    local deadline=$((SECONDS + start_timeout_s))
    until docker info >/dev/null 2>&1; do
        if [ $SECONDS -ge $deadline ]; then
            tail -n 20 "$data/dockerd.log" >&2
            fail "dockerd did not answer within $start_timeout_s s; its last words are above"
        fi
        sleep 0.3
    done
    say "started dockerd; for commands by hand: export DOCKER_HOST=$DOCKER_HOST"
}

# Without CAP_SYS_RESOURCE a privileged container only starts if nobody asks for that capability.
write_configuration() {
    local runtime=
    if ! has_capability 24; then
        "$kind_e2e/scripts/tools.sh" >/dev/null
        cp "$bin/runtime-wrapper" "$data/runtime-wrapper.new"
        # Not where the tools are: those of an old version are removed.
        mv "$data/runtime-wrapper.new" "$data/runtime-wrapper"
        runtime="\"runtimes\": {\"wrapped\": {\"path\": \"$data/runtime-wrapper\"}}, \"default-runtime\": \"wrapped\","
    fi
    cat >"$data/daemon.json" <<END
{
  $runtime
  "data-root": "$data/data",
  "bridge": "none",
  "exec-root": "$engine_run/exec",
  "ip6tables": false,
  "log-driver": "json-file",
  "log-opts": {"max-size": "10m", "max-file": "1"}
}
END
}

# Whether this process has the capability of that number (linux/capability.h).
has_capability() {
    local effective
    effective=$(sed -n 's/^CapEff:\t*//p' /proc/self/status)
    [ $((0x$effective >> $1 & 1)) -eq 1 ]
}

down() {
    local pid
    pid=$(cat $engine_run/dockerd.pid 2>/dev/null) || return 0
    if grep -qz dockerd "/proc/$pid/cmdline" 2>/dev/null; then
        # Its bridge and most of its rules go with it. A node that is left keeps it.
        docker network rm "$KIND_EXPERIMENTAL_DOCKER_NETWORK" >/dev/null 2>&1 || true
        kill "$pid"
        local deadline=$((SECONDS + start_timeout_s))
        while kill -0 "$pid" 2>/dev/null; do
            [ $SECONDS -lt $deadline ] || fail "dockerd ($pid) did not end within $start_timeout_s s"
            sleep 0.2
        done
        # Where a rule is not there, the others still have to go.
        remove_rules || true
        say "ended dockerd"
    fi
    rm -rf $engine_run
}

# Docker leaves its chains. (Forwarding was on before it started, so it set no policy against it.)
remove_rules() {
    local chain
    for chain in DOCKER-USER DOCKER-ISOLATION-STAGE-1; do
        iptables --delete FORWARD --jump $chain
    done
    iptables --table nat --delete PREROUTING --match addrtype --dst-type LOCAL --jump DOCKER
    iptables --table nat --delete OUTPUT ! --destination 127.0.0.0/8 --match addrtype --dst-type LOCAL --jump DOCKER
    for chain in DOCKER-USER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2 DOCKER; do
        iptables --flush $chain
        iptables --delete-chain $chain
    done
    iptables --table nat --flush DOCKER
    iptables --table nat --delete-chain DOCKER
} 2>/dev/null

main "$@"
