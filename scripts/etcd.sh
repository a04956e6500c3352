#!/usr/bin/env bash
# Builds the etcd that `make bench-scale` measures beside our store, into the cache folder, and
# prints where it is. Through a module of our own, because etcd's has `replace` directives, which
# `go install` refuses.
#
# usage: scripts/etcd.sh
set -euo pipefail

version=3.5.21
folder=${FEDGATE_CACHE:-$HOME/.cache/fedgate}/etcd-$version
program=$folder/etcd

if [[ ! -x $program ]]; then
    mkdir -p "$folder"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    printf 'module fedgate.local/etcd\n\ngo 1.23\n\nrequire go.etcd.io/etcd/server/v3 v%s\n' \
        "$version" >go.mod
    cat >main.go <<'EOF'
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
EOF
    go mod tidy >&2
    go build -o "$program.new" . >&2
    mv "$program.new" "$program"
fi
printf '%s\n' "$program"
