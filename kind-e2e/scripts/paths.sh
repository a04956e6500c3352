#!/usr/bin/env bash
# Prints where things are, for programs: one NAME=VALUE a line.
#   TOOLS     the folder of kubectl, helm and kind; empty if those of the machine are used
#   CACHE     the folder of kubeconfigs (kubeconfig/NAME), logs and programs of this version
#   LOCK      the file that whoever uses the clusters holds with flock(2)
#   DOCKER_HOST, NETWORK   the engine, and the Docker network of the nodes
#
# usage: kind-e2e/scripts/paths.sh
set -euo pipefail
. "$(dirname "$0")/common.sh"

mkdir -p "$cache"
tools=$bin
if has_system_tools; then tools=; fi
printf '%s\n' "TOOLS=$tools" "CACHE=$cache" "LOCK=$clusters_lock" "DOCKER_HOST=${DOCKER_HOST:-}" "NETWORK=$KIND_EXPERIMENTAL_DOCKER_NETWORK"
