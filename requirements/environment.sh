#!/bin/sh
# Brings up the virtual environment .venv: `sh requirements/environment.sh run` with what the server needs, `... dev`
# with the tests' and checkers' packages as well. Needs nothing but a Python with venv and pip.
#
# The environment is current when its stamp holds the fingerprint of everything it was made from; contents are compared,
# not times, so that another branch with the same requirements installs nothing. The stamp is written last, and an
# environment that an interrupted installation left behind is made anew.
set -eu

kind=${1:?usage: environment.sh run|dev}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd -- "$root"
venv=.venv

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "parley: $*"
    exit 1
}

# These would make pip or Python look outside the environment.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

fingerprint() {
    # The path belongs to it: scripts and the editable installation name it, so a moved checkout is installed anew.
    { printf '%s\n' "$1" "$root"; cat pyproject.toml requirements/environment.sh "requirements/$1.txt"; } | cksum
}

current() {
    [ -x "$venv/bin/python" ] && [ -x "$venv/bin/parley" ] && [ -f "$venv/parley-$1" ] &&
        [ "$(cat "$venv/parley-$1")" = "$(fingerprint "$1")" ] && "$venv/bin/python" -c '' 2>/dev/null
}

suitable() { "$1" -c "import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, $2)))" >/dev/null 2>&1; }
complete() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Prints the interpreter to use: PYTHON if set, else the first that suits, preferring versions that the locked
# packages have wheels for (below 3.15).
interpreter() {
    if [ -n "${PYTHON:-}" ]; then
        suitable "$PYTHON" 99 || fail "PYTHON=$PYTHON is not a Python >= 3.11."
        complete "$PYTHON" || fail "PYTHON=$PYTHON lacks the modules venv and ensurepip."
        printf '%s\n' "$PYTHON"
        return
    fi
    incomplete=
    for bound in 15 99; do
        for candidate in python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3 /usr/local/bin/python3; do
            command -v "$candidate" >/dev/null 2>&1 && suitable "$candidate" "$bound" || continue
            if complete "$candidate"; then
                printf '%s\n' "$candidate"
                return
            fi
            incomplete=$candidate
        done
    done
    if [ -n "$incomplete" ]; then
        version=$("$incomplete" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "$incomplete cannot make virtual environments: its modules venv and ensurepip are missing." \
            "On Debian and Ubuntu: apt-get install python$version-venv"
    fi
    fail "Python 3.11 or newer is needed and none was found. Install one, or name it: make PYTHON=/path/to/python3.12"
}

current "$kind" && exit 0
[ -w . ] || fail "the environment belongs into $root, which is not writable."

# One installation at a time; where flock is missing, two at once are the caller's to avoid.
if command -v flock >/dev/null 2>&1; then
    exec 9>.venv.lock
    flock 9
    if current "$kind"; then exit 0; fi
fi

usable() {
    [ ! -e "$venv/parley-unfinished" ] && [ -x "$venv/bin/python" ] && suitable "$venv/bin/python" 99 &&
        "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

if ! usable; then
    python=$(interpreter)
    say "parley: making $venv with $("$python" --version 2>&1) ($python)"
    rm -rf -- "$venv"
    "$python" -m venv "$venv" || { rm -rf -- "$venv"; fail "$python -m venv failed (see above)"; }
fi
rm -f -- "$venv/parley-run" "$venv/parley-dev"

# pip downloads first and installs then: when it gives up by itself nothing is half done, when it is killed something
# may be.
: >"$venv/parley-unfinished"
say "parley: installing requirements/$kind.txt"
"$venv/bin/python" -m pip install --quiet --require-hashes -r "requirements/$kind.txt" || {
    rm -f -- "$venv/parley-unfinished"
    fail "the packages could not be installed (see above)."
}
# The build backend is among the packages just installed: no isolation, no second download.
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --no-index --editable . ||
    fail "the checkout could not be installed (see above)."

rm -f -- "$venv/parley-unfinished"

# What the tests need includes what the server needs.
if [ "$kind" = dev ]; then fingerprint run >"$venv/parley-run"; fi
fingerprint "$kind" >"$venv/parley-$kind"
