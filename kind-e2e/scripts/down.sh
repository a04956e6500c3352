#!/usr/bin/env bash
# Removes the clusters, and the engine if engine.sh started it. What was built stays in the cache.
# Waits for a run that uses them.
#
# usage: kind-e2e/scripts/down.sh
set -euo pipefail
. "$(dirname "$0")/common.sh"

mkdir -p "$cache_root"
exec 6>"$clusters_lock"
flock 6
if docker info >/dev/null 2>&1; then
    for name in east west south; do
        docker rm --force --volumes "fedgate-machine-$name" >/dev/null 2>&1 || true
        # Another person's cluster of that name, about which it complains, is no reason to stop.
        "$kind_e2e/scripts/cluster.sh" down "$name" || true
    done
fi
"$kind_e2e/scripts/engine.sh" down
