#!/usr/bin/env bash
# Builds the programs of an earlier commit, for suites that upgrade from it: FEDGATE_UPGRADE_FROM, or
# the commit before HEAD. Nothing of this checkout is touched, and what is not committed plays no part.
# Prints NAME=VALUE:
#   REVISION   the commit
#   PROGRAMS   the folder of its programs
#   TREE       its files, of which the charts are used
#
# The newest result is kept in the cache folder (170 MB and the files), and so are built dependencies
# (5 GB). The first time takes as long as a first `make build`, later ones some minutes, and none for
# a commit that was built before.
#
# usage: kind-e2e/scripts/earlier.sh
set -euo pipefail
. "$(dirname "$0")/common.sh"

folder=$cache_root/earlier
repository=$(cd "$kind_e2e/.." && pwd)
# For forget_own_crates.
. "$repository/scripts/ci-cache.sh"
programs="fedgate-federation fedgate-gateway fedctl"

main() {
    local revision
    revision=$(find_revision)
    local place=$folder/$revision
    mkdir -p "$folder"
    # Two that build at once would only slow each other down.
    exec 7>"$folder/lock"
    flock 7
    if [ ! -e "$place/.complete" ]; then
        find "$folder" -mindepth 1 -maxdepth 1 -type d ! -name target -exec rm -rf {} +
        build "$revision" "$place"
        touch "$place/.complete"
    fi
    printf '%s\n' "REVISION=$revision" "PROGRAMS=$place/programs" "TREE=$place/tree"
}

find_revision() {
    local wanted=${FEDGATE_UPGRADE_FROM:-HEAD~1}
    git -C "$repository" rev-parse --git-dir >/dev/null 2>&1 ||
        fail "$repository is no clone, so that there is no earlier commit to upgrade from"
    git -C "$repository" rev-parse --verify --quiet "$wanted^{commit}" && return
    if [ "$(git -C "$repository" rev-parse --is-shallow-repository)" = true ]; then
        fail "this clone is shallow and lacks $wanted; run \`git fetch --deepen=1\`, or name a commit that it has by FEDGATE_UPGRADE_FROM"
    fi
    fail "there is no commit $wanted; name another one by FEDGATE_UPGRADE_FROM"
}

build() {
    local revision=$1 place=$2 started=$SECONDS program
    say "building the programs of $(git -C "$repository" log -1 --format='%h (%s)' "$revision")"
    mkdir -p "$place/tree" "$place/programs"
    git -C "$repository" archive "$revision" | tar --extract --directory "$place/tree"
    export CARGO_TARGET_DIR=$folder/target CARGO_INCREMENTAL=0
    cd "$place/tree"
    scripts/setup.sh build >&2
    forget_own_crates
    # All of the workspace decides on the features of dependencies, as for `make build`.
    # shellcheck disable=SC2046
    nice -n 10 cargo build --quiet --workspace --locked $(printf -- '--bin %s ' $programs) >&2 ||
        fail "the programs of $revision do not build; what cargo says is above"
    for program in $programs; do
        # Debugging information is ten times the program.
        strip --strip-unneeded -o "$place/programs/$program" "$CARGO_TARGET_DIR/debug/$program"
    done
    forget_own_crates
    say "built in $((SECONDS - started)) s"
}

main "$@"
