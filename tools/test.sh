#!/usr/bin/env bash
# From a fresh Debian machine to all tests: installs what they need, builds, runs them. Further words go to ctest (tools/test.sh -R cli).
set -euo pipefail
cd "$(dirname "$0")/.."
tools/deps.sh --test
cmake --preset release
cmake --build --preset release
ctest --preset release -j "$(nproc)" "$@"
