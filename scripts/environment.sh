#!/bin/sh
# environment.sh FOLDER: a virtual environment with LGMC in it, editable, at the tested versions.
# $PYTHON is tried first, then what else the machine calls Python 3.10 to 3.12.
set -eu
venv=$1

fail() {
    echo "lgmc: $1" >&2
    exit 1
}

suits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null
}

if [ ! -x "$venv/bin/python" ]; then
    # What is not there is ours to make, and to take away again if that fails; nothing else is.
    [ ! -e "$venv" ] || fail "$venv is there but is no environment: remove it or set VENV to another place"
    python=
    for candidate in "${PYTHON:-python3}" python3 python3.12 python3.11 python3.10; do
        if suits "$candidate"; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] || fail "no Python 3.10, 3.11 or 3.12 found: install one, or name it with make PYTHON=/path/to/python3.12"

    echo "lgmc: making $venv with $("$python" --version)"
    # Stopped half way, nothing is left that the next run would take for an environment.
    trap 'rm -rf "$venv"' EXIT
    trap 'exit 130' INT TERM HUP
    # Debian and Ubuntu ship Python without ensurepip unless python3-venv is installed; a pip or a
    # virtualenv that is there for other reasons does as well.
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv "$venv"
    elif "$python" -m virtualenv --version >/dev/null 2>&1; then
        "$python" -m virtualenv -q "$venv"
    elif "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --without-pip "$venv"
        "$python" -m pip --python "$venv/bin/python" install -q pip ||
            fail "$python cannot make an environment with pip: apt install python3-venv"
    else
        fail "$python has no venv module: install it (apt install python3-venv) or set PYTHON to another Python 3.10-3.12"
    fi
    trap - EXIT INT TERM HUP
fi

suits "$venv/bin/python" || fail "$venv has a Python that LGMC does not run on: remove it, or set PYTHON to Python 3.10-3.12"
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || fail "$venv has no pip: remove it and run make again"

echo "lgmc: installing (about 5 GB with torch; a few minutes the first time)"
"$venv/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]' ||
    fail "the installation failed: the lines above say why; run make again once it is mended"
