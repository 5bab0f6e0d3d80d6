#!/usr/bin/env bash
# kac tune, killed at random moments and resumed, ends with the bytes of a run that nobody killed; a run that was stopped goes on too.
set -uo pipefail
dir=$(mktemp -d "${TMPDIR:-/tmp}/kac-resume-XXXXXX")
trap 'rm -rf "$dir"' EXIT
kac=$KAC_BINARY
bad=0
fail() { echo "failed: $*" && bad=$((bad + 1)); }
printf 'a red circle\na blue square\n' >"$dir/prompts.txt"
options=(--prompts "$dir/prompts.txt" --eval-prompts "$dir/prompts.txt" --steps 3 --batch 2 --rounds 14 --eval-every 5 --eval-samples 1
    --save-every 5 --keep 2 --rank 4 --lr 0.003 --ema 0.9 --lr-schedule cosine --lr-updates 14 --early-stop 50 --reward clip --reward "brightness=0.4:0.5,z")

rounds_of() { local k; k=$(grep -c '"event":"round"' "$1/log.jsonl" 2>/dev/null); echo "${k:-0}"; }
# What a run says of its rounds and evaluations, without clocks and without what was logged when it began or ended.
story() {
    python3 - "$1/log.jsonl" <<'P'
import json, sys
for d in map(json.loads, open(sys.argv[1])):
    if d["event"] in ("round", "eval", "sweep"):
        print(json.dumps({k: v for k, v in d.items() if k not in ("ms", "seconds", "round_ms")}, sort_keys=True))
P
}
check() { # folder, what happened to it
    cmp -s "$dir/whole/tuned.safetensors" "$1/tuned.safetensors" || fail "$2: another LoRA"
    for file in tuned-000005 tuned-000010; do
        cmp -s "$dir/whole/checkpoints/$file.safetensors" "$1/checkpoints/$file.safetensors" || fail "$2: another $file"
    done
    cmp -s <(story "$dir/whole") <(story "$1") || fail "$2: another log: $(diff <(story "$dir/whole") <(story "$1") | head -3 | cut -c1-300)"
    [ "$(wc -l <"$1/log.csv")" -eq 15 ] || fail "$2: log.csv has $(wc -l <"$1/log.csv") lines"
}

"$kac" tune "${options[@]}" -o "$dir/whole" >/dev/null 2>"$dir/err" || fail "the whole run: $(cat "$dir/err")"

# three kills: at a random number of rounds and some random time after
RANDOM=${SEED:-$(($(date +%N | sed 's/^0*//') % 32768))}
echo "SEED=$RANDOM"
"$kac" tune "${options[@]}" -o "$dir/killed" >/dev/null 2>"$dir/err" &
for try in 1 2 3; do
    pid=$!
    until=$((RANDOM % 3 + 4 * try - 2))
    while kill -0 $pid 2>/dev/null && [ "$(rounds_of "$dir/killed")" -lt $until ] 2>/dev/null; do sleep 0.02; done
    sleep "0.$((RANDOM % 3))$((RANDOM % 10))"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    echo "killed after $(rounds_of "$dir/killed") rounds"
    [ $try -eq 3 ] && break
    "$kac" tune --resume -o "$dir/killed" >/dev/null 2>"$dir/err" &
done
if [ -e "$dir/killed/checkpoint.safetensors" ]; then # else the last one came too late
    "$kac" tune --resume -o "$dir/killed" --threads 1 >/dev/null 2>"$dir/err" || fail "resumed: $(cat "$dir/err")"
    grep -q "going on after round" "$dir/err" || fail "resumed: it said $(cat "$dir/err")"
fi
check "$dir/killed" "killed three times"
[ -e "$dir/killed/checkpoint.safetensors" ] && fail "a checkpoint is left"

# half a line at the end of the logs, and none of the checkpoint's logs: the one is cut, the other refused
"$kac" tune "${options[@]}" -o "$dir/stopped" >"$dir/out" 2>"$dir/err" &
pid=$!
while kill -0 $pid 2>/dev/null && [ "$(rounds_of "$dir/stopped")" -lt 3 ] 2>/dev/null; do sleep 0.02; done
kill -INT $pid
wait $pid
code=$?
[ $code -eq 130 ] && grep -q "kac tune --resume" "$dir/err" || fail "Ctrl-C: exit code $code, $(cat "$dir/err")"
grep -q '"interrupted"' "$dir/stopped/run.json" || fail "Ctrl-C: state"
printf '{"event":"round","rou' >>"$dir/stopped/log.jsonl"
printf '99,9' >>"$dir/stopped/log.csv"
cp -r "$dir/stopped" "$dir/cut"
"$kac" tune --resume -o "$dir/stopped" >/dev/null 2>"$dir/err" || fail "after Ctrl-C: $(cat "$dir/err")"
check "$dir/stopped" "stopped"
: >"$dir/cut/log.jsonl"
"$kac" tune --resume -o "$dir/cut" >/dev/null 2>"$dir/err"
[ $? -eq 1 ] && grep -q "shorter than its checkpoint" "$dir/err" || fail "a lost log: $(cat "$dir/err")"

# another configuration, other prompts
cp -r "$dir/cut" "$dir/other"
"$kac" tune --resume -o "$dir/other" --lr 0.1 >/dev/null 2>"$dir/err"
[ $? -eq 2 ] && grep -q "another --lr" "$dir/err" || fail "another --lr: $(cat "$dir/err")"
echo "a ring" >>"$dir/prompts.txt"
"$kac" tune --resume -o "$dir/other" >/dev/null 2>"$dir/err"
[ $? -eq 2 ] && grep -q "other prompts" "$dir/err" || fail "other prompts: $(cat "$dir/err")"
echo "$bad failed"
[ $bad -eq 0 ]
