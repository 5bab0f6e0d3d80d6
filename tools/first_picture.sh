#!/usr/bin/env bash
# From a fresh Debian machine to a steered picture and its page: tools/first_picture.sh "a red circle above a blue square"
set -euo pipefail
cd "$(dirname "$0")/.."
tools/deps.sh
cmake --preset release -DKAC_TESTS=OFF >/dev/null
cmake --build --preset release
exec build/kac generate "$@"
