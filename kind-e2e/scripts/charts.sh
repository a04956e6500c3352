#!/usr/bin/env bash
# Tests the charts (helm/tests/run.sh) with the Helm that suites use, which is built if it is not there.
#
# usage: kind-e2e/scripts/charts.sh
set -euo pipefail
. "$(dirname "$0")/common.sh"

helm=helm
if ! has_system_tools; then helm=$("$kind_e2e/scripts/tools.sh")/helm; fi
exec "$kind_e2e/../helm/tests/run.sh" "$helm"
