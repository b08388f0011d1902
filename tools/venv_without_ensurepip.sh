#!/usr/bin/env bash
# Debian and Ubuntu ship Python without ensurepip; then a virtual environment can't be made until python3-venv is there.
set -euo pipefail
python=$1 venv=$2
rm -rf "$venv"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "Python has no venv module here. Install it and try again: sudo apt-get install python$version-venv" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "installing python$version-venv"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq "python$version-venv" >/dev/null || "${as_root[@]}" apt-get install -y -qq python3-venv >/dev/null
exec "$python" -m venv "$venv"
