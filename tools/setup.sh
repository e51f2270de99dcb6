#!/bin/sh
# Makes .venv from requirements.lock, with nothing but a Python 3.11 to 3.13. uv is used if it is there, else taken from PyPI.
set -eu
cd "$(dirname "$0")/.."

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    echo "Frontdesk's tests and demo need Python 3.11, 3.12 or 3.13, and none was found here." >&2
    echo "(The Letta server does not run on 3.14 yet.) Install one, or name it: make PYTHON=/path/to/python3.13 …" >&2
    exit 1
}

find_uv() {
    for candidate in "${FRONTDESK_UV:-}" uv .uv/bin/uv .uv/lib/bin/uv; do
        if [ -n "$candidate" ] && "$candidate" --version >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    echo "Getting uv from PyPI …" >&2
    if "$1" -m venv .uv >/dev/null 2>&1; then
        .uv/bin/python -m pip install --quiet --disable-pip-version-check uv >&2 && echo .uv/bin/uv
    elif "$1" -m pip --version >/dev/null 2>&1; then
        "$1" -m pip install --quiet --disable-pip-version-check --target .uv/lib uv >&2 && echo .uv/lib/bin/uv
    else
        echo "This Python has neither venv nor pip. On Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    fi
}

python=$(find_python)
uv=$(find_uv "$python")
if ! [ -x .venv/bin/python ] || ! fits .venv/bin/python; then
    "$uv" venv --quiet --clear --python "$python" .venv
fi
"$uv" pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock
"$uv" pip install --quiet --python .venv/bin/python --no-deps --editable .
# The demo and the tests build Letta's own environment with the same uv.
mkdir -p .venv/share && case $uv in /*) echo "$uv" ;; *) echo "$PWD/$uv" ;; esac > .venv/share/uv-path
touch .venv/.ready
