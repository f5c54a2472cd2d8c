#!/usr/bin/env bash
# Builds the command-line tools of go.mod into .cache/tools with the Go toolchain and prints their folder.
#
# Versions come from go.mod and are checked against go.sum. A build that is newer than both files is kept, so a second
# call returns at once. Needs `go` on PATH: exit status 3 says that it is missing, anything else that the build failed.
set -euo pipefail
cd "$(dirname "$0")"
out=$(cd ../.. && pwd)/.cache/tools
readonly MISSING_GO=3

is_current() { [ -x "$out/$1" ] && [ "$out/$1" -nt go.mod ] && [ "$out/$1" -nt go.sum ]; }

build() { # build NAME PACKAGE; written beside and moved into place, so that an interrupted build leaves no half tool
    is_current "$1" && return
    command -v go > /dev/null || { echo "deploy/tools: go is not on PATH, so $1 cannot be built" >&2; exit "$MISSING_GO"; }
    echo "building $1 (minutes the first time)" >&2
    local part="$out/.$1.$$"
    CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags="-s -w" -o "$part" "$2"
    mv "$part" "$out/$1"
}

mkdir -p "$out"
build helm helm.sh/helm/v4/cmd/helm
echo "$out"
