#!/usr/bin/env bash
# Tests the charts with Helm: lint, renders against helm/tests/golden/ (UPDATE=1 rewrites), rendered twice and as an upgrade the
# same, refusals, what the guides show. With a KUBECONFIG, that cluster's API server judges every object too (dry run), in
# namespace fedgate-system, which is made with Pod Security `restricted` and stays.
#
# usage: helm/tests/run.sh [HELM [KUBECONFIG]]      e.g. helm/tests/run.sh ~/.cache/fedgate/kind-abc/bin/helm
set -euo pipefail
cd "$(dirname "$0")/../.."

helm=${1:-helm}
kubeconfig=${2:-}
# The one beside Helm is of the cluster's version.
kubectl=kubectl
[ ! -x "$(dirname "$helm")/kubectl" ] || kubectl=$(dirname "$helm")/kubectl
chart=helm/fedgate
tests=helm/tests
namespace=fedgate-system
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

main() {
    command -v "$helm" >/dev/null || { say "there is no $helm; give the path of Helm"; exit 1; }
    # Nothing of the person's own Helm plays a part, and no cluster does.
    export HELM_CACHE_HOME=$work/cache HELM_CONFIG_HOME=$work/config HELM_DATA_HOME=$work/data
    unset KUBECONFIG
    lint
    for values in "$tests"/values/*.yaml; do
        check_render "$(basename "$values" .yaml)"
    done
    check_refusals
    check_guides
    check_rules
    [ -z "$kubeconfig" ] || check_server
    [ "$failures" -eq 0 ] || { say "$failures checks of the charts failed"; exit 1; }
    say "the charts are fine"
}

say() { printf 'helm/tests: %s\n' "$*"; }

wrong() {
    say "WRONG: $*"
    failures=$((failures + 1))
}

lint() {
    local values
    for values in "$tests"/values/*.yaml; do
        "$helm" lint --strict "$chart" --values "$values" >"$work/lint" 2>&1 || wrong "lint with $values: $(cat "$work/lint")"
    done
    "$helm" lint --strict helm/fedgate-crds >"$work/lint" 2>&1 || wrong "lint of fedgate-crds: $(cat "$work/lint")"
}

# The values of a case: the preset of the same name, if there is one, below the case's own.
render() {
    local name=$1 preset=()
    shift
    [ ! -e "$chart/values-$name.yaml" ] || preset=(--values "$chart/values-$name.yaml")
    "$helm" template fedgate "$chart" --namespace "$namespace" "${preset[@]}" --values "$tests/values/$name.yaml" "$@"
}

check_render() {
    local name=$1 golden=$tests/golden/$1.yaml
    if ! render "$name" >"$work/first" 2>"$work/error"; then
        wrong "$name does not render: $(cat "$work/error")"
        return
    fi
    render "$name" >"$work/second"
    cmp -s "$work/first" "$work/second" || wrong "$name renders differently the second time"
    render "$name" --is-upgrade >"$work/second"
    cmp -s "$work/first" "$work/second" || wrong "$name renders differently as an upgrade"
    if [ "${UPDATE:-}" = 1 ]; then
        cp "$work/first" "$golden"
    elif ! diff -u "$golden" "$work/first" >"$work/diff"; then
        wrong "$name differs from $golden; UPDATE=1 writes it anew"
        head -n 60 "$work/diff"
    fi
}

check_refusals() {
    local line arguments expected
    while IFS= read -r line; do
        case $line in '#'* | '') continue ;; esac
        arguments=${line%% => *} expected=${line#* => }
        # The arguments are words of a command line.
        # shellcheck disable=SC2086
        if "$helm" template fedgate "$chart" --set cluster.name=east $arguments >"$work/out" 2>&1; then
            wrong "not refused: $arguments"
        elif ! grep -qF -- "$expected" "$work/out"; then
            wrong "$arguments: the message lacks \"$expected\": $(cat "$work/out")"
        fi
    done <"$tests/refused.txt"
}

# Every file `file=...` of a guide is written, every `helm install` and `helm upgrade` of it rendered.
check_guides() {
    local page name commands=0
    for page in docs/guide/install-kubernetes.md docs/guide/expose-udp.md docs/guide/gitops.md; do
        name=$work/$(basename "$page" .md)
        mkdir -p "$name"
        ln -s "$PWD/helm" "$name/helm"
        awk -v folder="$name" '
            /^```/ && open { open = 0; close(file); next }
            /^```.* file=/ { open = 1; file = $0; sub(/.* file=/, "", file); sub(/ .*/, "", file); file = folder "/" file; next }
            /^```sh/ { open = 1; file = folder "/commands"; next }
            /^```/ { open = 1; file = "/dev/null"; next }
            open { print >> file }' "$page"
        [ -e "$name/commands" ] || continue
        # A line that ends in a backslash goes on.
        while read -r line; do
            case $line in 'helm install '* | 'helm upgrade --install '*) ;; *) continue ;; esac
            line=${line#helm install } line=${line#helm upgrade --install }
            commands=$((commands + 1))
            # shellcheck disable=SC2086
            (cd "$name" && eval "'$helm' template $line") >"$work/out" 2>&1 || wrong "$page: helm install $line: $(cat "$work/out")"
        done < <(sed -e ':again' -e '/\\$/{N;s/\\\n//;b again' -e '}' "$name/commands")
    done
    [ "$commands" -ge 5 ] || wrong "only $commands helm commands were found in the guides"
}

# Alerts are judged by Prometheus' own tool where it is there.
check_rules() {
    if ! command -v promtool >/dev/null; then
        say "skipped: promtool is not there: alerts are not checked by it"
        return
    fi
    promtool check rules "$chart/files/alerts.yaml" >"$work/out" 2>&1 || wrong "alerts: $(cat "$work/out")"
    promtool test rules "$tests/alerts-test.yaml" >"$work/out" 2>&1 || wrong "alerts: $(cat "$work/out")"
}

# Every object of every case is accepted by the API server, and no pod is against Pod Security `restricted`, but for the host
# port of one case. Kinds of the Prometheus operator are judged only where it is installed.
check_server() {
    local values name objects=$work/objects
    export KUBECONFIG=$kubeconfig
    "$helm" template fedgate-crds helm/fedgate-crds >"$objects"
    apply "$objects" || wrong "definitions are refused by the API server: $(cat "$work/out")"
    if ! "$kubectl" get namespace "$namespace" >/dev/null 2>&1; then
        "$kubectl" create namespace "$namespace" >/dev/null
        "$kubectl" label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null
    fi
    "$kubectl" api-resources --cached=false --output name >"$work/kinds"
    for values in "$tests"/values/*.yaml; do
        name=$(basename "$values" .yaml)
        render "$name" | without_missing_kinds >"$objects"
        if ! apply "$objects"; then
            wrong "$name is refused by the API server: $(grep -v serverside-applied "$work/out")"
        elif grep -v 'hostPort' "$work/out" | grep -q Warning; then
            wrong "$name: $(grep Warning "$work/out")"
        fi
    done
}

apply() {
    "$kubectl" apply --server-side --dry-run=server --validate=strict --filename "$1" >"$work/out" 2>&1
}

without_missing_kinds() {
    if grep -q monitoring.coreos.com "$work/kinds"; then cat; else
        awk 'function put() { if (text !~ /apiVersion: monitoring.coreos.com/) printf "%s", text; text = "" }
            /^---$/ { put() }
            { text = text $0 "\n" }
            END { put() }'
    fi
}

main
