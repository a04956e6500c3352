# Sourced by .ci/run and by what builds an earlier commit: keeps built dependencies between runs, outside the clone.
#
# The cache is a cargo target folder, named by the toolchain and Cargo.lock. Our own crates are
# removed from it before each run: cargo compares times, not content, and would take what an earlier
# clone left for its own. What stays are dependencies, whose content their version fixes. Without the
# cache a run is only slower.

# Sets CARGO_TARGET_DIR, unless it is set already or another run holds the cache.
use_build_cache() {
    [ -z "${CARGO_TARGET_DIR:-}" ] || return 0
    local cache key
    cache="${FEDGATE_CACHE:-$HOME/.cache/fedgate}"
    key=$({ cargo -vV; rustc -vV; cat Cargo.lock Cargo.toml; } | sha256sum | cut -c1-16)
    mkdir -p "$cache" || return 0
    # Held until this shell ends.
    exec 9>"$cache/lock"
    if ! flock --nonblock 9; then
        echo "ci: another run holds $cache; building without it"
        return 0
    fi
    # A key that changed makes the older folder useless, and it is large.
    find "$cache" -mindepth 1 -maxdepth 1 -name 'target-*' ! -name "target-$key" -exec rm -rf {} +
    export CARGO_TARGET_DIR="$cache/target-$key"
    # Our own crates are built once per run, so there is nothing to do incrementally.
    export CARGO_INCREMENTAL=0
    forget_own_crates
    echo "ci: dependencies are kept in $CARGO_TARGET_DIR"
}

# Removes what was built from our own crates by an earlier run or of another commit.
forget_own_crates() {
    [ -d "$CARGO_TARGET_DIR" ] || return 0
    local manifest packages=()
    for manifest in */Cargo.toml; do
        # fuzz/ is a workspace of its own, and not built here.
        if grep -q '^\[workspace\]' "$manifest"; then continue; fi
        packages+=(--package "$(dirname "$manifest")")
    done
    cargo clean --quiet --locked "${packages[@]}" || rm -rf "$CARGO_TARGET_DIR"
}

# Removes programs and kubeconfigs of clusters of other versions; each is a third of a gigabyte. Those
# of this version stay, outside the clone, and so does the Docker engine's store with the node's image.
forget_old_clusters() {
    local current
    current=$(kind-e2e/scripts/paths.sh | sed -n 's/^CACHE=//p')
    # The engine's folder has no hash in its name.
    find "$(dirname "$current")" -mindepth 1 -maxdepth 1 -type d -name 'kind-????????????????' \
        ! -path "$current" -exec rm -rf {} +
}
