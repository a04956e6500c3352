#!/usr/bin/env bash
# Measures Kubernetes at scale, alone: a real etcd and kube-apiserver are started for it and ended
# after it. PROFILE=release measures optimised programs.
#
# usage: discovery/examples/kubernetes_scale/run.sh [CHANGES-PER-SECOND [SECONDS]]
set -euo pipefail
cd "$(dirname "$0")/../../.."

profile=${PROFILE:-debug}
flags=()
[ "$profile" = debug ] || flags=(--release)
cargo build "${flags[@]}" --locked --bin fedgate-federation --bin fedgate-gateway
cargo build "${flags[@]}" --locked -p discovery --example kubernetes_scale
folder=$(mktemp -d)
trap 'kind-e2e/scripts/api-server.sh down "$folder"' EXIT
KUBECONFIG=$(kind-e2e/scripts/api-server.sh up "$folder")
export KUBECONFIG
program=${CARGO_TARGET_DIR:-target}/$profile/examples/kubernetes_scale
"$program" fill
"$program" measure
"$program" churn "${1:-1000}" "${2:-30}"
"$program" versions
