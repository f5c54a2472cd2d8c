#!/usr/bin/env bash
# Rewrites the hash-locked requirement files from the two pyproject files. Locks carry hashes and no addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
lock() { # lock OUT SOURCE...
    local out=$1; shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
        --no-emit-index-url --no-emit-find-links "${UPGRADE[@]}" --output-file "requirements/$out" "$@"
}
UPGRADE=()
[ "${1:-}" = "--upgrade" ] && UPGRADE=(--upgrade)
# `terrace` is this repository's own package: it is installed from client/, so only its dependencies are locked.
own() { grep -v '^    "terrace",$' pyproject.toml > .lock/pyproject.toml; cp client/pyproject.toml .lock/client/pyproject.toml; }
mkdir -p .lock/client && trap 'rm -rf .lock' EXIT && own
echo "uv" > .lock/uv.in && lock bootstrap.txt .lock/uv.in
echo "hatchling" > .lock/build.in && lock build.txt .lock/build.in # what turns the tree into wheels, for the images
lock service.txt .lock/pyproject.toml .lock/client/pyproject.toml --extra agent --extra postgres
lock dev.txt .lock/pyproject.toml .lock/client/pyproject.toml --all-extras --group .lock/pyproject.toml:dev
lock job.txt --group .lock/pyproject.toml:job
if grep -n '://' requirements/*.txt; then echo "a lock names an address" >&2; exit 1; fi
