#!/usr/bin/env bash
# The page in a real browser, offline: no console message, every picture decoded, nothing wider than a phone's window.
set -euo pipefail
browser=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$browser" ]; then
    echo "SKIPPED: chromium is not installed (tools/deps.sh --all)"
    exit 77
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/kac-page-XXXXXX")
trap 'rm -rf "$dir"' EXIT
cp -r tests/report/fixture "$dir/run"
"$KAC_BINARY" report "$dir/run" >"$dir/said"
page=$dir/run/index.html
mkdir "$dir/alone"
cp "$page" "$dir/alone/index.html" # self-contained: without the folder's pictures

# A copy with a probe at its end; the page itself forbids scripts, so the copy drops that line.
probe='<script>addEventListener("load",()=>{const all=[...document.images];
const wide=document.documentElement.scrollWidth-document.documentElement.clientWidth;
document.title="images "+all.length+" shown "+all.filter(i=>i.complete&&i.naturalWidth>0).length+" overflow "+wide;});</script>'

browse() { # window, file, more flags
    timeout 120 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$dir/profile" --no-first-run \
        --disable-background-networking --enable-logging=stderr --v=0 --window-size="$1" --dump-dom "file://$2" 2>"$dir/log" >"$dir/dom"
}

probed() { # page, copy with the probe
    sed "s/<meta http-equiv=\"Content-Security-Policy\"[^>]*>//" "$1" >"$2"
    grep -q 'Content-Security-Policy' "$1"
    if grep -q 'Content-Security-Policy' "$2"; then echo "the probe could not be prepared"; exit 1; fi
    printf '%s' "$probe" >>"$2"
}
probed "$page" "$dir/alone/probe.html"

fail=0
browse 1100,900 "$dir/alone/index.html"
if grep -F ':CONSOLE' "$dir/log"; then echo "the page wrote to the console"; fail=1; fi
expect() { # window, page with the probe, its pictures
    browse "$1" "$2"
    title=$(grep -o '<title>images[^<]*' "$dir/dom" | head -1 || true)
    echo "$1: ${title#<title>}"
    case $title in "<title>images $3 shown $3 overflow 0") ;; *) echo "wanted $3 pictures, all shown, no overflow"; fail=1 ;; esac
}
expect 1100,900 "$dir/alone/probe.html" 56
expect 390,800 "$dir/alone/probe.html" 56

# the page of a tuning run: five evaluations (the first and last twice), five scales
python3 tests/report/make_tune_fixture.py "$dir/tune"
"$KAC_BINARY" report "$dir/tune" >"$dir/said"
probed "$dir/tune/index.html" "$dir/alone/tune.html"
expect 1100,900 "$dir/alone/tune.html" 12
expect 390,800 "$dir/alone/tune.html" 12

# the page of a bench: its pictures stay files, those of closed prompts are not fetched; then a tree of its own
python3 tests/report/make_bench_fixture.py "$dir/bench"
"$KAC_BINARY" report "$dir/bench" >"$dir/said"
browse 1100,900 "$dir/bench/index.html"
if grep -F ':CONSOLE' "$dir/log"; then echo "the page of a bench wrote to the console"; fail=1; fi
probed "$dir/bench/index.html" "$dir/bench/probe.html"
sed -i 's/ loading="lazy"//' "$dir/bench/probe.html"
expect 1100,900 "$dir/bench/probe.html" 48
expect 390,800 "$dir/bench/probe.html" 48
view=$(ls "$dir/bench/views/"*.html | head -1)
probed "$view" "$dir/bench/views/probe.html"
expect 390,800 "$dir/bench/views/probe.html" 0

# the check must be able to fail: a console message is seen
printf '<script>console.error("probe")</script>' >>"$dir/alone/probe.html"
browse 1100,900 "$dir/alone/probe.html"
grep -qF ':CONSOLE' "$dir/log" || { echo "console messages are not caught"; fail=1; }
exit $fail
