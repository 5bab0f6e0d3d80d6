#!/usr/bin/env bash
# Installs the Debian packages that kac is built from. Safe to run again: what is there stays as it is.
#   tools/deps.sh          to build and run
#   tools/deps.sh --test   and for the tests (headless Chromium for the page)
#   tools/deps.sh --all    and for CI and development (clang, sanitizers, clang-format)
set -euo pipefail

packages=(build-essential cmake ninja-build pkg-config python3 zlib1g-dev libjpeg-dev libcjson-dev libutf8proc-dev libpcre2-dev libstb-dev)
optional=(libdnnl-dev) # the backend onednn, for comparison; kac builds without it
case ${1:-} in
"") ;;
--test) optional+=(chromium groff) ;;
--all) packages+=(clang libomp-dev clang-format) optional+=(chromium groff zsh) && packages+=(python3-venv) ;;
*) echo "usage: tools/deps.sh [--test|--all]" >&2 && exit 2 ;;
esac

missing() { # those of the arguments that are not installed
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || echo "$name"
    done
}

if ! command -v apt-get >/dev/null; then
    echo "tools/deps.sh knows Debian and its relatives only; install these yourself, or what they are called there:" >&2
    echo "  ${packages[*]} (and, where there is one: ${optional[*]})" >&2
    exit 1
fi
mapfile -t wanted < <(missing "${packages[@]}")
mapfile -t welcome < <(missing "${optional[@]}")
if [ ${#wanted[@]} -eq 0 ] && [ ${#welcome[@]} -eq 0 ]; then
    exit 0
fi
root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null; then
        root=(sudo)
    elif [ ${#wanted[@]} -eq 0 ]; then
        echo "not installed, and not needed: ${welcome[*]}" >&2
        exit 0
    else
        echo "these packages are missing, and installing them needs root or sudo: ${wanted[*]}" >&2
        exit 1
    fi
fi
apt() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@"; }
apt update >/dev/null || echo "the package lists could not be updated; going on with the old ones" >&2
if [ ${#wanted[@]} -gt 0 ]; then
    echo "installing ${wanted[*]}" >&2
    apt install -y --no-install-recommends "${wanted[@]}" >/dev/null
fi
for name in "${welcome[@]}"; do
    echo "installing $name" >&2
    apt install -y --no-install-recommends "$name" >/dev/null || echo "$name could not be installed: going on without it" >&2
done
