#!/usr/bin/env bash
# Builds the command-line tools of go.mod into .cache/tools with the Go toolchain and prints their folder.
#
# Versions come from go.mod and are checked against go.sum. A build that is newer than both files is kept, so a second
# call returns at once. Exit status 3 says that there is no Go that go.mod accepts; anything else, that the build failed.
set -euo pipefail
cd "$(dirname "$0")"
out=$(cd ../.. && pwd)/.cache/tools
readonly NO_USABLE_GO=3

is_current() { [ -x "$out/$1" ] && [ "$out/$1" -nt go.mod ] && [ "$out/$1" -nt go.sum ]; }

build() { # build NAME PACKAGE; written beside and moved into place, so that an interrupted build leaves no half tool
    is_current "$1" && return
    go list -m > /dev/null 2>&1 || { echo "deploy/tools: no Go on PATH that go.mod accepts, so $1 cannot be built" >&2; exit "$NO_USABLE_GO"; }
    echo "building $1 (minutes the first time)" >&2
    local part="$out/.$1.$$"
    CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags="-s -w" -o "$part" "$2"
    mv "$part" "$out/$1"
}

mkdir -p "$out"
build helm helm.sh/helm/v4/cmd/helm
echo "$out"
