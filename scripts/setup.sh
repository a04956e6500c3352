#!/usr/bin/env bash
# Installs what is missing for the given groups of scripts/apt-packages.txt, and the Rust toolchain
# of rust-toolchain.toml. Says what and why before it does. Needs root only for Debian's packages,
# and starts no service. For the group build, builds RocksDB and tells cargo where it is.
#
# usage: scripts/setup.sh build|test...
set -euo pipefail
cd "$(dirname "$0")/.."

# Servers live here, and are not on every user's path.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

policy=/usr/sbin/policy-rc.d
cargo_config=.cargo/config.toml
cargo_config_mark="# Written by scripts/setup.sh, which leaves a file without this line alone."
as_root=()

main() {
    [ $# -gt 0 ] || fail "name a group: build or test"
    install_toolchain
    install_packages "$@"
    case " $* " in *" build "*) provide_rocksdb ;; esac
}

install_toolchain() {
    if ! command -v cargo >/dev/null; then
        fail "cargo is not installed; install rustup, which brings it, and run this again"
    fi
    if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then
        return
    fi
    local channel
    channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
    command -v rustup >/dev/null || fail "Rust $channel with rustfmt and clippy is missing, and so is rustup"
    say "missing: Rust $channel with rustfmt and clippy, which rust-toolchain.toml asks for"
    if adopt_toolchain "$channel"; then
        return
    fi
    say "installing it with rustup"
    rustup toolchain install "$channel" --profile minimal --component rustfmt --component clippy
}

# If the wanted release is installed under another name (such as `stable`), gives it its own name too.
# rustup would download it a second time.
adopt_toolchain() {
    local channel=$1 home toolchain host
    home=$(rustup show home)
    for toolchain in "$home"/toolchains/*; do
        [ -x "$toolchain/bin/cargo-clippy" ] && [ -x "$toolchain/bin/rustfmt" ] || continue
        if "$toolchain/bin/rustc" --version | grep -qF "rustc $channel "; then
            host=$("$toolchain/bin/rustc" -vV | sed -n 's/^host: //p')
            say "using $(basename "$toolchain"), which is that release"
            ln -sfn "$toolchain" "$home/toolchains/$channel-$host"
            return 0
        fi
    done
    return 1
}

install_packages() {
    local missing=() group package probe why
    while read -r group package probe why; do
        case " $* " in *" $group "*) ;; *) continue ;; esac
        if ! is_there "$probe"; then
            say "missing: $package, which $why"
            missing+=("$package")
        fi
    done < <(grep -v '^#' scripts/apt-packages.txt)
    [ ${#missing[@]} -gt 0 ] || return 0

    command -v apt-get >/dev/null || fail "install these packages by hand: ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            fail "run as root: apt-get install --no-install-recommends ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing with apt-get: ${missing[*]}"
    forbid_services
    apt update
    apt install --yes --no-install-recommends "${missing[@]}"
    for package in "${missing[@]}"; do
        dpkg -s "$package" >/dev/null 2>&1 || fail "apt-get did not install $package"
        keep_off_at_boot "$package"
    done
}

# Whether a command, or a file that matches a pattern, exists.
is_there() {
    case $1 in
    /*) compgen -G "$1" >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

# Runs apt-get, which is wordy, and shows its words only if it fails.
apt() {
    local log
    log=$(mktemp)
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        fail "apt-get $1 failed; its words are above"
    fi
    rm -f "$log"
}

# A package's scripts ask policy-rc.d before they start a service; 101 means no. An existing policy
# is the machine owner's and stays.
forbid_services() {
    [ ! -e "$policy" ] || return 0
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
}

# The tests start their own servers; the one of the package would take a port at the next boot.
keep_off_at_boot() {
    case $1 in nginx | redis-server | haproxy) ;; *) return 0 ;; esac
    command -v systemctl >/dev/null || return 0
    "${as_root[@]}" systemctl --quiet disable "$1" 2>/dev/null || say "could not disable the service $1"
}

# Builds RocksDB unless it is in the cache, and points cargo to it, for every build in this checkout.
# Without it cargo builds too, but compiles a RocksDB for each target folder and profile.
provide_rocksdb() {
    # One from elsewhere is preferred by cargo too.
    [ -z "${ROCKSDB_LIB_DIR:-}" ] || return 0
    local folder wanted
    folder=$(scripts/rocksdb.sh) || fail "RocksDB was not built; its words are above"
    wanted="$cargo_config_mark
[env]
ROCKSDB_LIB_DIR = \"$folder\"
ROCKSDB_STATIC = \"1\""
    if [ -e "$cargo_config" ] && ! grep -qxF "$cargo_config_mark" "$cargo_config"; then
        grep -qF "ROCKSDB_LIB_DIR = \"$folder\"" "$cargo_config" ||
            say "$cargo_config is not ours and stays; add this, or cargo compiles its own RocksDB:
${wanted#*$'\n'}"
        return 0
    fi
    # Left alone if nothing changes: others may be reading it.
    [ "$(cat "$cargo_config" 2>/dev/null)" != "$wanted" ] || return 0
    mkdir -p "$(dirname "$cargo_config")"
    printf '%s\n' "$wanted" >"$cargo_config.new"
    mv "$cargo_config.new" "$cargo_config"
}

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

main "$@"
