#!/usr/bin/env bash
# make_venv.sh PYTHON FOLDER: the virtual environment, or one clear line on what is missing (exit 2).
set -euo pipefail
python=$1 folder=$2

fail() {
    echo "flopstat: $*" >&2
    exit 2
}

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    fail "'$python' does not start; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "'$python' is Python $version, 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.12"

# An environment that was copied or moved here would still run the code of its old place.
if "$folder/bin/python" -m pip --version >/dev/null 2>&1 && grep -qE "^command = .* $PWD/$folder\$" "$folder/pyvenv.cfg"; then
    exit 0
fi

# Debian keeps venv's pip in a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=python$version-venv
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "flopstat: installing $package"
        log=$(mktemp)
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package"; } >"$log" 2>&1 || true
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "'$python' cannot make virtual environments; install its venv module (Debian, Ubuntu: apt-get install $package)${log:+; log in $log}"
fi
"$python" -m venv --clear "$folder" || fail "'$python' could not make $folder"
