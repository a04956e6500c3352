#!/usr/bin/env bash
# Builds RocksDB once, into a cache folder outside target/, and prints that folder. With its path in
# ROCKSDB_LIB_DIR, cargo links that library instead of compiling the copy in librocksdb-sys, which
# takes several times as long and happens anew in each target folder, profile and set of features.
#
# The sources are those of the librocksdb-sys in Cargo.lock, the flags those of its build.rs for
# Linux. They are compiled as a unity build: a few large files that include many sources each, so
# that the headers are read a few times and not hundreds of times.
#
# usage: scripts/rocksdb.sh
set -euo pipefail
cd "$(dirname "$0")/.."

cxx=${CXX:-g++}
cache=${FEDGATE_CACHE:-$HOME/.cache/fedgate}
chunks=8
# What the compiler needs for the largest of them, measured.
chunk_memory_kib=2100000
# Another checkout may still want an older one, so it goes only when nobody asked for it for so long.
forget_after_days=14

# build.rs adds flags for SSE 4.2 or ARM's CRC instructions only if RUSTFLAGS ask for such processors.
flags=(
    -O2 -std=c++20 -fPIC -ffunction-sections -fdata-sections -w -include cstdint
    -DNDEBUG -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
    -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX
    -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT
    -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT
)

main() {
    local version key folder
    command -v "$cxx" >/dev/null || fail "$cxx is not installed; run make setup-build"
    version=$(locked_version)
    [ -n "$version" ] || fail "Cargo.lock has no librocksdb-sys"
    # Of all that decides what comes out, but not of this script's words.
    key=$({
        "$cxx" --version
        "$cxx" -dumpmachine
        echo "$chunks" "${flags[@]}"
        declare -f write_chunks compile
    } | sha256sum | cut -c1-16)
    folder="$cache/rocksdb-$version-$key"
    mkdir -p "$cache"
    # Held until this shell and its compilers end.
    exec 8>"$cache/rocksdb.lock"
    if ! flock --nonblock 8; then
        say "another run is building it; waiting"
        flock 8
    fi
    if [ ! -f "$folder/librocksdb.a" ]; then build "$folder"; fi
    touch "$folder"
    find "$cache" -mindepth 1 -maxdepth 1 -name 'rocksdb-*' -type d -mtime "+$forget_after_days" \
        -exec rm -rf {} +
    printf '%s\n' "$folder"
}

locked_version() {
    awk '$1 == "name" { wanted = $3 == "\"librocksdb-sys\"" }
         $1 == "version" && wanted { gsub(/"/, "", $3); print $3; exit }' Cargo.lock
}

build() {
    local folder=$1 work="$cache/rocksdb-building" sources jobs started=$SECONDS
    sources=$(sources_folder)
    [ -n "$sources" ] || fail "cargo metadata does not say where librocksdb-sys lies"
    jobs=$(parallel_jobs)
    say "building $(basename "$folder"), once; about 3 minutes on two cores, here with $jobs compilers"
    rm -rf "$work"
    mkdir "$work"
    write_chunks "$sources" "$work"
    if ! seq "$chunks" | xargs -P "$jobs" -I N scripts/rocksdb.sh --compile "$sources" "$work/N"; then
        cat "$work"/*.log >&2
        fail "a compilation failed; the compiler's words are above"
    fi
    ar crs "$work/librocksdb.a" "$work"/*.o
    rm -f "$work"/*.o "$work"/*.cc "$work"/*.log
    rm -rf "$folder"
    mv "$work" "$folder"
    say "built in $((SECONDS - started)) s"
}

# Where cargo unpacked the crate; it downloads it if need be.
sources_folder() {
    local host
    host=$(rustc -vV | sed -n 's/^host: //p')
    cargo metadata --locked --format-version 1 --filter-platform "$host" |
        grep -o '"manifest_path":"[^"]*/librocksdb-sys[^"/]*/Cargo.toml"' |
        sed 's/^"manifest_path":"//; s|/Cargo.toml"$||'
}

# As many compilers as cores, or as fit into memory.
parallel_jobs() {
    local cores memory limit fitting
    cores=$(nproc)
    memory=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
    limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max)
    if [ "$limit" != max ] && [ $((limit / 1024)) -lt "$memory" ]; then memory=$((limit / 1024)); fi
    fitting=$((memory / chunk_memory_kib))
    if [ "$fitting" -lt 1 ]; then fitting=1; fi
    echo $((cores < fitting ? cores : fitting))
}

# Neighbours in the list share most headers, so each chunk is a piece of it.
write_chunks() {
    local sources=$1 work=$2
    # The crate has its own, filled-in copy of build_version.cc.
    grep -vx 'util/build_version.cc' "$sources/rocksdb_lib_sources.txt" |
        awk -v chunks="$chunks" -v work="$work" '
            NF { file[n++] = "rocksdb/" $1 }
            END {
                file[n++] = "build_version.cc"
                for (i = 0; i < n; i++)
                    print "#include \"" file[i] "\"" > (work "/" int(i * chunks / n) + 1 ".cc")
            }'
}

compile() {
    local sources=$1 chunk=$2
    "$cxx" "${flags[@]}" -I"$sources" -I"$sources/rocksdb/include" -I"$sources/rocksdb" \
        -I"$sources/rocksdb/third-party/gtest-1.8.1/fused-src" \
        -c "$chunk.cc" -o "$chunk.o" 2>"$chunk.log" || return 255 # which makes xargs stop
}

say() { printf 'rocksdb: %s\n' "$*" >&2; }
fail() { printf 'rocksdb: error: %s\n' "$*" >&2; exit 1; }

if [ "${1:-}" = --compile ]; then compile "$2" "$3"; else main; fi
