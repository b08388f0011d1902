#!/usr/bin/env bash
# Pins what is installed, with hashes and without addresses, for every platform and Python that the project supports.
set -euo pipefail
uv=$1
options=(--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --quiet --upgrade
    --custom-compile-command "make lock")
printf 'hatchling\neditables\n' | "$uv" pip compile "${options[@]}" pyproject.toml - -o requirements/runtime.lock
"$uv" pip compile "${options[@]}" --group dev -c requirements/runtime.lock -o requirements/dev.lock
"$uv" pip compile "${options[@]}" --group demo -c requirements/runtime.lock -o requirements/demo.lock
# The official client's releases of tests/conformance/easymaker. Their old dependencies have no wheels for all platforms, so Linux alone.
for release in 1.0.4 1.1.6 2.0.1 2.1.2 2.1.5; do
    printf 'easymaker==%s\n' "$release" | "$uv" pip compile "${options[@]/--universal/--python-platform=linux}" - \
        -o "requirements/easymaker-$release.lock"
done
