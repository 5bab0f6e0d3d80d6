#!/usr/bin/env bash
# Installs into a fresh folder and uses what is there as somebody else would: a C client through pkg-config and through CMake, the headers
# in C++, the manual page, the completions, the program with its weights.
set -euo pipefail
if [ -n "${KAC_SANITIZED:-}" ]; then
    echo "SKIPPED: a library with sanitizers is not what gets installed"
    exit 77
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/kac-install-XXXXXX")
trap 'rm -rf "$dir"' EXIT
prefix=$dir/usr
cmake --install "$KAC_BUILD" --prefix "$prefix" >"$dir/log"
cp tests/install/client.c "$dir/"
lib=$(dirname "$(find "$prefix" -name 'libkac.so' | head -1)")
export LD_LIBRARY_PATH=$lib PKG_CONFIG_PATH=$lib/pkgconfig
# The file says where it was configured for; a moved prefix is told to pkg-config.
pkg() { pkg-config --define-variable=prefix="$prefix" "$@" kac; }
strict=(-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wcast-qual
    -Wwrite-strings -Werror)

echo "pkg-config: kac $(pkg --modversion)"
cc -std=c11 "${strict[@]}" -Wno-missing-prototypes $(pkg --cflags) "$dir/client.c" -o "$dir/client" $(pkg --libs) -lm
"$dir/client"

mkdir "$dir/cmake"
cat >"$dir/cmake/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.20)
project(client LANGUAGES C)
find_package(kac 0.1 REQUIRED)
if(NOT EXISTS "${KAC_WEIGHTS_DIR}/shapes-64/model_index.json")
  message(FATAL_ERROR "KAC_WEIGHTS_DIR is ${KAC_WEIGHTS_DIR}")
endif()
add_executable(client ../client.c)
target_link_libraries(client PRIVATE kac::kac m)
END
cmake -S "$dir/cmake" -B "$dir/cmake/build" -DCMAKE_PREFIX_PATH="$prefix" >"$dir/log" || { cat "$dir/log" && exit 1; }
cmake --build "$dir/cmake/build" >"$dir/log" || { cat "$dir/log" && exit 1; }
"$dir/cmake/build/client"

for header in "$prefix"/include/kac/*.h; do # each stands alone, in C and in C++
    name=kac/$(basename "$header")
    printf '#include <%s>\nint main(void) { return 0; }\n' "$name" >"$dir/one.c"
    cc -std=c11 "${strict[@]}" $(pkg --cflags) -fsyntax-only "$dir/one.c"
    printf '#include <%s>\nint main() { return 0; }\n' "$name" >"$dir/one.cpp"
    c++ -std=c++17 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror $(pkg --cflags) -fsyntax-only "$dir/one.cpp"
done
printf '#include <kac/kac.h>\n#include <cstdio>\nint main() { return std::puts(kac_status_text(KAC_E_USAGE)) < 0; }\n' >"$dir/one.cpp"
c++ -std=c++17 -Wall -Wextra -Werror $(pkg --cflags) "$dir/one.cpp" -o "$dir/one" $(pkg --libs)
"$dir/one"

# a plug-in needs the headers alone, and the installed program takes it
examples=$prefix/share/doc/kac/examples
cc -std=c11 "${strict[@]}" -Wno-missing-prototypes $(pkg --cflags) -shared -fPIC "$examples/redness_plugin.c" -o "$dir/redness.so"
printf '%s\n' '#include <kac/reward_plugin.h>' 'static int score(void *, const kac_plugin_picture *, int n, double *r, char *, size_t) {' \
    '    for (int i = 0; i < n; i++) r[i] = 1;' '    return 0;' '}' \
    'static const kac_reward_plugin plugin = {KAC_REWARD_PLUGIN_ABI, 0, nullptr, score, nullptr};' 'KAC_REWARD_PLUGIN_EXPORT(&plugin)' >"$dir/plugin.cpp"
c++ -std=c++17 -Wall -Wextra -Wpedantic -Werror $(pkg --cflags) -shared -fPIC "$dir/plugin.cpp" -o "$dir/cpp.so"
for reward in "plugin=$dir/redness.so" "plugin=$dir/cpp.so" "command=python3 $examples/redness_scorer.py"; do
    "$prefix/bin/kac" score tests/report/fixture --keep 1 --reward "$reward" >"$dir/log" || { echo "the installed program and $reward" && exit 1; }
done

foreign=$(nm -D --defined-only "$lib/libkac.so" | awk '$2 ~ /[TBDRVW]/ && $3 !~ /^_/ { print $3 }' |
    while read -r name; do grep -qw "$name" "$prefix"/include/kac/*.h || echo "$name"; done)
if [ -n "$foreign" ]; then echo "libkac gives names that no public header declares: $foreign" && exit 1; fi
test -L "$lib/libkac.so"
objdump -p "$lib/libkac.so" >"$dir/log"
grep -q 'SONAME *libkac\.so\.[0-9]' "$dir/log"

for file in bin/kac share/man/man1/kac.1 share/bash-completion/completions/kac share/zsh/site-functions/_kac \
    share/kac/weights/shapes-64/model_index.json share/doc/kac/LICENSE share/doc/kac/THIRD_PARTY.md; do
    test -s "$prefix/$file" || { echo "$file is missing" && exit 1; }
done
test ! -e "$prefix/include/base"
(cd "$dir" && env -u KAC_WEIGHTS -u LD_LIBRARY_PATH "$prefix/bin/kac" info --json) >"$dir/log"
grep -q "\"weights\":.*$prefix/" "$dir/log" ||
    { echo "the installed program does not find the installed weights" && exit 1; }
