#!/usr/bin/env bash
# The browser tests drive the system's Chromium (or Chrome). Debian's package is installed where it is missing and the right to do so is there.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && exit 0
done
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "The browser tests need Chromium. Install it and try again: sudo apt-get install chromium" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "installing chromium"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk >/dev/null
