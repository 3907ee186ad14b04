#!/bin/sh
# Writes requirements/run.txt and dev.txt: the newest versions that pyproject.toml allows, with the hashes of all files
# of each release, valid on every platform and Python that we support. LOCK_ARGS="--upgrade-package aiohttp" moves one.
set -eu
cd -- "$(dirname -- "$0")/.."

uv='uv>=0.9,<1'
if [ ! -x .venv-lock/bin/uv ]; then
    PYTHON=${PYTHON:-} sh requirements/environment.sh run
    .venv/bin/python -m venv .venv-lock
    .venv-lock/bin/python -m pip install --quiet --disable-pip-version-check "$uv"
fi

lock() {
    output=$1
    shift
    # --no-config and no emitted index: where packages are fetched from is a machine's setting, not the project's.
    .venv-lock/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
        ${LOCK_ARGS:---upgrade} --output-file "$output" "$@" pyproject.toml requirements/build.in
    if grep -n -E '://|^ *-(i|f|-index-url|-extra-index-url|-find-links|-trusted-host)' "$output"; then
        echo "parley: $output names a host or a path of this machine" >&2
        exit 1
    fi
}

lock requirements/run.txt
lock requirements/dev.txt --extra dev --constraint requirements/run.txt
