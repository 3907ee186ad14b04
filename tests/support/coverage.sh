#!/bin/sh
# `run` runs the whole suite and records its coverage; `report` holds the record against the threshold, after a new run
# only if there is no record of a passed run or a file has changed since: CI tests, then checks, and runs the suite once.
set -eu
cd -- "$(dirname -- "$0")/../.."
bin=.venv/bin
passed=.coverage/passed

run() {
    rm -rf .coverage
    mkdir .coverage
    # Started before the tests: what is edited while they run is not covered by them.
    : >.coverage/started
    "$bin/python" -m coverage run -m pytest -n auto --dist worksteal
    "$bin/python" -m coverage combine --quiet
    mv .coverage/started "$passed"
}

# Only what people edit counts: tests leave pictures and caches behind.
stale() {
    [ ! -f "$passed" ] ||
        [ -n "$(find protocol storage server tests parley.py pyproject.toml -type f -newer "$passed" \
            \( -name '*.py' -o -name '*.sql' -o -name '*.toml' -o -name '*.md' -o -name '*.js' \) | head -n 1)" ]
}

case ${1:-} in
    run) run ;;
    report)
        if stale; then run; fi
        "$bin/python" -m coverage report
        ;;
    *)
        echo "usage: coverage.sh run|report" >&2
        exit 2
        ;;
esac
