#!/usr/bin/env bash
# Makes the Debian package `fedgate` from programs that are built already, and prints its path. The same
# programs and the same commit give the same bytes.
#
# One package has both daemons and fedctl: without Kubernetes they meet by Unix sockets on one machine
# and are of one version, and a daemon without a configuration does not start.
#
# DEB_MAINTAINER says who answers for it, DEB_COMPRESSION=none makes it in a tenth of the time.
#
# usage: packaging/deb.sh FOLDER_OF_PROGRAMS OUTPUT_FOLDER [VERSION]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
programs="fedgate-federation fedgate-gateway fedctl"

main() {
    [ $# -ge 2 ] || fail "usage: deb.sh FOLDER_OF_PROGRAMS OUTPUT_FOLDER [VERSION]"
    folder=$1 output=$2
    version=${3:-$(version)}
    architecture=$(dpkg --print-architecture)
    export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(commit_time)}
    umask 022
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    root=$work/root
    install_programs
    install_files
    document
    control
    find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    mkdir -p "$output"
    package=$output/fedgate_${version}_$architecture.deb
    dpkg-deb --root-owner-group -Z"${DEB_COMPRESSION:-xz}" --build "$root" "$work/fedgate.deb" >/dev/null
    mv "$work/fedgate.deb" "$package"
    printf '%s\n' "$package"
}

# The workspace's version; between releases one that sorts before it (`~`), in the order of commits.
version() {
    local release commit
    release=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"$/\1/p' "$here/../Cargo.toml")
    release=${release//-/\~}
    commit=$(git -C "$here" describe --always --abbrev=9 --exclude '*' --dirty=.dirty 2>/dev/null) || commit=
    if [ -z "$commit" ] || git -C "$here" describe --exact-match --match 'v*' --dirty=.dirty 2>/dev/null |
        grep -qv dirty; then
        printf '%s\n' "$release"
    else
        printf '%s~git%s.%s\n' "$release" "$(date --utc --date="@$(commit_time)" +%Y%m%d%H%M%S)" "$commit"
    fi
}

commit_time() {
    git -C "$here" log -1 --format=%ct 2>/dev/null || stat --format=%Y "$here/../Cargo.toml"
}

install_programs() {
    local program
    for program in $programs; do
        [ -x "$folder/$program" ] || fail "$folder/$program is missing; build it, or name the folder it is in"
        install -D --mode=0755 "$folder/$program" "$root/usr/bin/$program"
        # Debugging information is ten times the program.
        strip --strip-unneeded --remove-section=.comment "$root/usr/bin/$program"
    done
}

install_files() {
    local unit name page
    put() { install -D --mode=0644 "$here/$1" "$root/$2"; }
    for unit in fedgate-federation fedgate-gateway; do
        put "systemd/$unit.service" "usr/lib/systemd/system/$unit.service"
        put "default/$unit" "etc/default/$unit"
    done
    put systemd/sysusers.conf usr/lib/sysusers.d/fedgate.conf
    put systemd/tmpfiles.conf usr/lib/tmpfiles.d/fedgate.conf
    put default/logrotate etc/logrotate.d/fedgate
    for name in federation gateway; do
        put "examples/$name.yaml" "usr/share/doc/fedgate/examples/$name.yaml"
    done
    for page in "$here"/man/*; do
        name=$(basename "$page")
        mkdir -p "$root/usr/share/man/man${name##*.}"
        gzip -9n <"$page" >"$root/usr/share/man/man${name##*.}/$name.gz"
    done
    mkdir -p "$root/etc/fedgate/manifests"
    completion bash usr/share/bash-completion/completions/fedctl
    completion zsh usr/share/zsh/vendor-completions/_fedctl
    completion fish usr/share/fish/vendor_completions.d/fedctl.fish
}

completion() {
    mkdir -p "$(dirname "$root/$2")"
    "$folder/fedctl" completion "$1" >"$root/$2"
}

document() {
    local folder=$root/usr/share/doc/fedgate
    mkdir -p "$folder"
    cp "$here/debian/copyright" "$folder/copyright"
    {
        printf 'fedgate (%s) unstable; urgency=medium\n\n' "$version"
        printf '  * CHANGELOG.md of the source says what changed.\n\n'
        printf ' -- %s  %s\n' "$(maintainer)" "$(LC_ALL=C date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")"
    } | gzip -9n >"$folder/changelog.gz"
    chmod 0644 "$folder"/*[!s]
}

# Whoever makes the package answers for it.
maintainer() {
    printf '%s\n' "${DEB_MAINTAINER:-Fedgate maintainers <maintainers@fedgate.invalid>}"
}

control() {
    local size script
    mkdir -p "$root/DEBIAN"
    size=$(du --summarize --apparent-size --block-size=1024 --exclude=DEBIAN "$root" | cut -f1)
    cat >"$root/DEBIAN/control" <<EOF
Package: fedgate
Version: $version
Architecture: $architecture
Maintainer: $(maintainer)
Installed-Size: $size
Depends: $(libraries), init-system-helpers (>= 1.52), systemd
Suggests: logrotate
Section: net
Priority: optional
Description: joins clusters into a federation without a hub
 Applications in one cluster call services in another by name; the bytes
 between clusters travel over mutually authenticated QUIC, gateway to gateway.
 .
 This package has the federation node, the gateway and fedctl, for a cluster
 that is a machine without Kubernetes. A daemon starts once its configuration
 is in /etc/fedgate.
EOF
    (cd "$root" && find etc -type f -printf '/%p\n' | LC_ALL=C sort) >"$root/DEBIAN/conffiles"
    (cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' |
        LC_ALL=C sort --zero-terminated | xargs --null md5sum) >"$root/DEBIAN/md5sums"
    for script in postinst prerm postrm; do
        install --mode=0755 "$here/debian/$script" "$root/DEBIAN/$script"
    done
}

# What the programs are linked with, as Debian's packages and versions.
libraries() {
    mkdir -p "$work/shlibs/debian"
    printf 'Source: fedgate\n\nPackage: fedgate\nArchitecture: any\n' >"$work/shlibs/debian/control"
    (cd "$work/shlibs" && dpkg-shlibdeps -O --warnings=0 $(printf " -e$root/usr/bin/%s" $programs)) |
        sed -n 's/^shlibs:Depends=//p'
}

fail() {
    echo "deb: $1" >&2
    exit 1
}

main "$@"
