#!/usr/bin/env bash
# Rewards from outside: programs that answer, crash, hang and lie, and plug-ins that do. Each failure is one line that names the command and
# what it said; nothing is left running and no file is left.
set -uo pipefail
dir=$(mktemp -d "${TMPDIR:-/tmp}/kac-outside-XXXXXX")
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/tmp"
export TMPDIR=$dir/tmp
kac=$KAC_BINARY
plugins=$KAC_BUILD/tests/plugins
scorer=tests/reward/outside_scorer.py
pictures=(tests/report/fixture/group_00_particle_0*.png)
bad=0
fail() { echo "failed: $*" && bad=$((bad + 1)); }

# rewards NAME SPEC [MORE…]: scores the four pictures, leaves "file reward" lines in $dir/NAME
rewards() {
    local name=$1 spec=$2
    shift 2
    "$kac" score "${pictures[@]}" --prompt "a red circle" --reward "$spec" --json "$@" >"$dir/out" 2>"$dir/err" ||
        { fail "$name: exit code $?: $(tail -1 "$dir/err")" && return; }
    python3 -c '
import json,sys
for i in sorted(json.load(open(sys.argv[1]))["images"], key=lambda i: i["file"]): print(i["file"], "%.9f" % i["reward"])' "$dir/out" >"$dir/$name"
    [ "$(wc -l <"$dir/$name")" -eq 4 ] || fail "$name: $(cat "$dir/$name")"
}

# refuses CODE TEXT SPEC [MORE…]: exit code, and the last line on standard error says TEXT; nothing printed, no file left, done in time
refuses() {
    local code=$1 text=$2 spec=$3 got
    shift 3
    timeout 20 "$kac" score "${pictures[@]}" --prompt "a red circle" --reward "$spec" "$@" >"$dir/out" 2>"$dir/err"
    got=$?
    [ $got -eq "$code" ] && tail -1 "$dir/err" | grep -qF -- "$text" && [ "$(grep -c '^kac score:' "$dir/err")" -eq 1 ] &&
        [ ! -s "$dir/out" ] && [ -z "$(ls -A "$TMPDIR")" ] ||
        fail "$spec: exit code $got, wanted $code and \"$text\"; it said: $(tail -1 "$dir/err" | cut -c1-300); left: $(ls -A "$TMPDIR")"
}

# ---- programs that work: files, base64, one at a time, slow, noisy, through a shell ----
rewards plain "command=python3 $scorer plain $dir/counts"
[ "$(cat "$dir/counts")" = 4 ] || fail "one request for four pictures: $(cat "$dir/counts")"
[ "$(cut -d' ' -f2 "$dir/plain" | sort -u | wc -l)" -gt 1 ] || fail "all rewards are the same: $(cat "$dir/plain")"
for how in base64 one slow-start stderr; do
    rewards $how "command=python3 $scorer $how $dir/counts-$how"
    cmp -s "$dir/plain" "$dir/$how" || fail "$how: other rewards"
done
[ "$(wc -l <"$dir/counts-one")" -eq 4 ] || fail "batch 1: $(cat "$dir/counts-one")"
rewards shell "command=sh -c 'exec python3 $scorer \"\$0\"' plain"
cmp -s "$dir/plain" "$dir/shell" || fail "sh -c: other rewards"
rewards weighed "command=\"python3 $scorer plain\":2"
rewards shaped "command=python3 $scorer plain,target=0.5:-2"
paste -d' ' "$dir/plain" "$dir/weighed" "$dir/shaped" | awk '{ d = $2 - 0.5; if (d < 0) d = -d
    if (($4 - 2 * $2) ^ 2 > 1e-15 || ($6 - 2 * d) ^ 2 > 1e-15) exit 1 }' || fail "weights and shapings: $(cat "$dir/weighed" "$dir/shaped")"
rewards files "command=python3 $scorer files"
grep -q "open: \['3'\]" "$dir/err" || fail "files of kac are open in it: $(cat "$dir/err")" # 3: its own look at them
rewards quoted "command=python3 $scorer plain \"\" ; touch $dir/made \`touch $dir/made\` \$(touch $dir/made)"
[ ! -e "$dir/made" ] || fail "a shell saw the command"
"$kac" score tests/report/fixture -r --prompt x --reward "command=python3 $scorer plain $dir/many" >"$dir/out" 2>"$dir/err" || fail "many: $(cat "$dir/err")"
awk -v all="$(find tests/report/fixture -name '*.png' | wc -l)" '$1 > 16 { exit 1 } { n += $1 } END { exit n != all }' "$dir/many" || fail "batches of $(tr '\n' ' ' <"$dir/many")"

# ---- programs that fail ----
run="command=python3 $scorer"
refuses 2 "quote" "command=python3 'x"
refuses 2 "needs a path" "command"
refuses 2 "names no program" "command= "
refuses 1 "cannot start $dir/nowhere" "command=$dir/nowhere x"
refuses 1 "outside_scorer.py early-exit ended with exit code 1 before it answered; it said: no model here" "$run early-exit"
refuses 1 "ended with exit code 3" "$run silent-exit"
refuses 1 "did not answer within 0.5 s" "$run late-start" --reward-timeout 0.5
refuses 1 "did not answer within 4 s; it said: thinking" "$run hang" --reward-timeout 4
refuses 1 "was ended by signal 11" "$run signal"
refuses 1 "closed its output" "$run close"
refuses 1 'said "Loading model..." where one line of JSON belongs' "$run chatty"
refuses 1 'must begin with {"protocol": 1}' "$run protocol"
refuses 1 "none of path, png_base64" "$run images"
refuses 1 "batch" "$run batch"
refuses 1 "where one line of JSON belongs" "$run list"
refuses 1 "5 rewards for 4 pictures" "$run count"
refuses 1 "another id" "$run id"
refuses 1 "another id" "$run no-id"
refuses 1 "NaN" "$run nan"
refuses 1 "no finite number" "$run huge"
refuses 1 "no finite number" "$run text"
refuses 1 'without a list "rewards"' "$run null"
refuses 1 "where one line of JSON belongs" "$run garbage"
refuses 1 "more than 1048576 bytes" "$run long"
refuses 1 "says: the picture is ugly" "$run error"
refuses 1 "must begin with" "command=echo {}"
refuses 1 "ended with exit code 0 before it answered" "command=true"
rewards children "command=python3 $scorer children $dir/group"
# field 5 of stat is the group; a zombie waits for the machine's init, not for us
left_of_group() { cat /proc/[0-9]*/stat 2>"$dir/err" | awk -v group="$1" '$5 == group && $3 != "Z" { n++ } END { exit n == 0 }'; }
for i in $(seq 50); do left_of_group "$(cat "$dir/group")" || break && sleep 0.1; done # a busy machine takes its time to end one
left_of_group "$(cat "$dir/group")" && fail "what the program started is still there"

# ---- a run whose scorer crashes goes on to the same pictures ----
small=("a red circle" --steps 6 --particles 3 --score-every 1 --reward "command=python3 $scorer crash-at $dir/crashed" --reward jpeg,z)
touch "$dir/crashed"
"$kac" generate "${small[@]}" -o "$dir/whole" >"$dir/out" 2>"$dir/err" || fail "generate: $(tail -1 "$dir/err")"
rm "$dir/crashed"
"$kac" generate "${small[@]}" -o "$dir/halves" >"$dir/out" 2>"$dir/err" && fail "a crashed scorer went unnoticed"
tail -1 "$dir/err" | grep -q "exit code 1 before it answered; it said: ValueError: out of luck" || fail "crash: $(tail -1 "$dir/err")"
"$kac" generate "${small[@]}" -o "$dir/halves" --resume >"$dir/out" 2>"$dir/err" || fail "resume: $(tail -1 "$dir/err")"
python3 - "$dir/whole" "$dir/halves" <<'END' || fail "the resumed run differs"
import json, re, sys
runs = [json.load(open(d + "/run.json")) for d in sys.argv[1:]]
assert all(r["state"] == "finished" for r in runs)
for a, b in zip(*(r["images"] for r in runs)):
    assert (a["file"], a["reward"], a["rewards"], a["log_weight"]) == (b["file"], b["reward"], b["rewards"], b["log_weight"]), (a, b)
    assert len(a["rewards"]) == 2
    pixels = [re.findall(rb"IDAT.*IEND", open(d + "/" + a["file"], "rb").read(), re.S) for d in sys.argv[1:]]
    assert pixels[0] == pixels[1] and pixels[0]
    assert b'"rewards"' in open(sys.argv[1] + "/" + a["file"], "rb").read()
lines = [json.loads(line) for line in open(sys.argv[1] + "/events.jsonl")]
steps = [e for e in lines if e["event"] == "rewards"]
assert [e["i_step"] for e in steps] == sorted({e["i_step"] for e in steps}) and steps[-1]["i_step"] == 6, steps
assert all(len(v) == 3 for e in steps for v in e["rewards"].values()) and len(steps[0]["rewards"]) == 2
END
grep -q "jpeg" "$dir/whole/index.html" || fail "the page does not name the second reward"
[ -z "$(ls -A "$TMPDIR")" ] || fail "left: $(ls -A "$TMPDIR")"

# ---- plug-ins ----
rewards redness_c "plugin=$plugins/plugin_redness.so"
rewards redness_py "command=python3 tools/examples/redness_scorer.py"
cmp -s "$dir/redness_c" "$dir/redness_py" || fail "the two examples differ: $(paste "$dir/redness_c" "$dir/redness_py")"
rewards redness_2 "plugin=$plugins/plugin_redness.so 2"
cmp -s "$dir/redness_c" "$dir/redness_2" && fail "the argument does nothing"
refuses 1 "plugin_redness.so x: wants a number" "plugin=$plugins/plugin_redness.so x"
refuses 1 "redness.so" "plugin=redness.so"
refuses 1 "cannot load the plug-in $dir/nowhere.so" "plugin=$dir/nowhere.so"
cp README.md "$dir/text.so"
refuses 1 "cannot load the plug-in $dir/text.so" "plugin=$dir/text.so"
refuses 1 "ABI 99, this kac wants 1" "plugin=$plugins/plugin_bad1.so"
refuses 1 "has no score function" "plugin=$plugins/plugin_bad2.so"
refuses 1 "lacks kac_reward_plugin_get" "plugin=$plugins/plugin_bad3.so"
refuses 1 "ABI 0" "plugin=$plugins/plugin_bad4.so"
refuses 1 "no licence" "plugin=$plugins/plugin_bad0.so open"
refuses 1 "its open failed with code 1 and did not say why" "plugin=$plugins/plugin_bad0.so silent"
refuses 1 "out of paint" "plugin=$plugins/plugin_bad0.so score"
refuses 1 "xxxx" "plugin=$plugins/plugin_bad0.so long"
for how in nan inf left; do
    "$kac" score "${pictures[@]}" --prompt x --reward "plugin=$plugins/plugin_bad0.so $how" --json >"$dir/out" 2>"$dir/err" && fail "$how: accepted"
    grep -q "for picture" "$dir/err" || fail "$how: $(cat "$dir/err")"
done

[ $bad -eq 0 ] || exit 1
echo "outside rewards: all as expected"
