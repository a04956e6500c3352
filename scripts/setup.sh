#!/usr/bin/env bash
# Installs what is missing for the given groups of scripts/apt-packages.txt, and the Rust toolchain
# of rust-toolchain.toml. Says what and why before it does. Needs root only for Debian's packages,
# and starts no service.
#
# usage: scripts/setup.sh build|test...
set -euo pipefail
cd "$(dirname "$0")/.."

# Servers live here, and are not on every user's path.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

policy=/usr/sbin/policy-rc.d

main() {
    [ $# -gt 0 ] || fail "name a group: build or test"
    install_toolchain
    install_packages "$@"
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
    say "missing: Rust $channel with rustfmt and clippy (rust-toolchain.toml); installing it with rustup"
    rustup toolchain install "$channel" --profile minimal --component rustfmt --component clippy
}

install_packages() {
    local missing=() group package probe why
    while read -r group package probe why; do
        case " $* " in *" $group "*) ;; *) continue ;; esac
        if ! command -v "$probe" >/dev/null; then
            say "missing: $package, which $why"
            missing+=("$package")
        fi
    done < <(grep -v '^#' scripts/apt-packages.txt)
    [ ${#missing[@]} -gt 0 ] || return 0

    command -v apt-get >/dev/null || fail "install these packages by hand: ${missing[*]}"
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "run as root: apt-get install --no-install-recommends ${missing[*]}"
        root=(sudo)
    fi
    say "installing with apt-get: ${missing[*]}"
    forbid_services
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
    for package in "${missing[@]}"; do
        dpkg -s "$package" >/dev/null 2>&1 || fail "apt-get did not install $package"
    done
}

# A package's scripts ask policy-rc.d before they start a service; 101 means no. An existing policy
# is the machine owner's and stays.
forbid_services() {
    [ ! -e "$policy" ] || return 0
    trap '"${root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod 755 "$policy"
}

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

main "$@"
