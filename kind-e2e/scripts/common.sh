# Sourced by the scripts beside it: where things are, and how they are told.

kind_e2e=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$kind_e2e/versions.env"

# Servers live here, and are not on every user's path.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# A name made of the content of these files and folders of kind-e2e/, so that a change builds anew
# beside the old.
content_key() {
    (cd "$kind_e2e" && find "$@" -type f -print0 | sort --zero-terminated | xargs --null sha256sum |
        sha256sum | cut -c1-16)
}

cache_root=${FEDGATE_CACHE:-$HOME/.cache/fedgate}
cache=$cache_root/kind-$(content_key versions.env tools node/pause.c scripts/tools.sh)
bin=$cache/bin
# There is one set of clusters on a machine.
clusters_lock=$cache_root/kind.lock

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# The engine that engine.sh starts has a socket of its own, so that it can't be taken for the machine's.
engine_run=/run/fedgate-kind
if [ -z "${DOCKER_HOST:-}" ] && [ -S $engine_run/docker.sock ]; then
    export DOCKER_HOST=unix://$engine_run/docker.sock
fi
# Without BuildKit, which wants to download a frontend.
export DOCKER_BUILDKIT=0

# The nodes' network, apart from the one that a user's own kind clusters share. Docker gives addresses
# from the upper half; the lower is for tests that place something at an address of their choice.
export KIND_EXPERIMENTAL_DOCKER_NETWORK=fedgate-kind
network_range=172.28.100.0/24
network_dynamic_range=172.28.100.128/25

# Tools that are on the machine are used if there are all of them; mixing releases would only add
# questions. FEDGATE_KIND=build asks for ours, FEDGATE_KIND=system for the machine's.
has_system_tools() {
    case ${FEDGATE_KIND:-} in
    build) return 1 ;;
    system) return 0 ;;
    esac
    local tool
    for tool in kind helm kubectl docker; do
        command -v "$tool" >/dev/null || return 1
    done
    # An engine of ours was started because there was none.
    [ ! -S $engine_run/docker.sock ] && docker info >/dev/null 2>&1
}

# Debian's packages in a minimal file system, as an image whose name is put into $debian. It depends on
# nothing of ours but this list. Uses the folder $work.
debian_image() {
    local release=$1 packages=$2 root=$work/debian
    debian=fedgate-kind/debian:$release-$(printf '%s' "$packages" | sha256sum | cut -c1-12)
    ! docker image inspect "$debian" >/dev/null 2>&1 || return 0
    say "installing Debian's packages"
    debootstrap --variant=minbase --include="$packages" "$release" "$root" >"$work/debootstrap.log" 2>&1 || {
        tail -n 20 "$work/debootstrap.log" >&2
        fail "debootstrap failed; its last words are above"
    }
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}
    tar -C "$root" -c . | docker import - "$debian" >/dev/null
    rm -rf "$root"
}
