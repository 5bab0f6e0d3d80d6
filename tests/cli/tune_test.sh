#!/usr/bin/env bash
# kac tune as a user meets it: what it leaves, that its LoRA loads back, mixing, and what is refused with which words.
set -uo pipefail
dir=$(mktemp -d "${TMPDIR:-/tmp}/kac-tune-XXXXXX")
trap 'rm -rf "$dir"' EXIT
kac=$KAC_BINARY
n=0 bad=0
fail() { echo "failed: $*" && bad=$((bad + 1)); }

# refuses CODE TEXT ARGUMENTS…: exit code, exactly one line on stderr that holds TEXT, nothing on stdout, and no new file in $dir
refuses() {
    local code=$1 text=$2 before after got
    shift 2
    n=$((n + 1))
    before=$(find "$dir" | sort)
    timeout 60 "$kac" tune "$@" >"$dir.out" 2>"$dir.err" </dev/null
    got=$?
    after=$(find "$dir" | sort)
    if [ $got -ne "$code" ] || [ "$(wc -l <"$dir.err")" -ne 1 ] || ! grep -qiF -- "$text" "$dir.err" || [ -s "$dir.out" ] ||
        [ "$before" != "$after" ]; then
        fail "kac tune $*"
        echo "  exit code $got, wanted $code and one line with \"$text\"; it said:"
        head -5 "$dir.err" | cut -c1-300 | sed 's/^/  /'
        [ "$before" != "$after" ] && echo "  and left: $(diff <(echo "$before") <(echo "$after") | grep '^>')"
    fi
    rm -f "$dir.out" "$dir.err"
}

printf 'a red circle\na blue square\n' >"$dir/two.txt"
: >"$dir/empty.txt"
printf '# only a remark\n\n' >"$dir/remarks.txt"
echo '{"prompt": ' >"$dir/cut.jsonl"
echo nonsense >"$dir/broken.safetensors"
small=(--prompts "$dir/two.txt" --eval-prompts "$dir/two.txt" --steps 2 --batch 2 --rounds 2 --eval-samples 1 --eval-every 0 --no-sweep --rank 2)

# methods and options
refuses 2 "did you mean alignprop?" --method alignprp -o "$dir/run"
refuses 2 "unknown tuning method" --method xyzzy -o "$dir/run"
refuses 2 "did you mean --rounds?" --round 3
refuses 2 "rounds" --rounds 0 -o "$dir/run"
refuses 2 "rounds" --rounds many -o "$dir/run"
refuses 2 "time" --time 0 -o "$dir/run"
refuses 2 "rank" --rank 0 -o "$dir/run"
refuses 2 "rank 1000 is larger than the layer" "${small[@]}" --rank 1000 -o "$dir/run"
refuses 2 "matches no layer" "${small[@]}" --targets to_x -o "$dir/run"
refuses 2 "alpha" "${small[@]}" --alpha 0 -o "$dir/run"
refuses 2 "--train full" "${small[@]}" --train full --rank 4 -o "$dir/run"
refuses 2 "--name" "${small[@]}" --name a/b -o "$dir/run"
refuses 2 "needs an --eval-reward" "${small[@]}" --model weights/shapes-64 --reward brightness=0.5 --early-stop 2 -o "$dir/run"
refuses 2 "--eval-every 0 has none" "${small[@]}" --early-stop 2 -o "$dir/run"
other=$("$kac" tune --help | sed -n 's/^--method \([a-z0-9-]*\):.*/\1/p' | grep -v '^alignprop$' | head -1)
[ -n "$other" ] && refuses 2 "--method alignprop" --method "$other" --trunc perstep -o "$dir/run"

# every method with nothing but its defaults
for method in $("$kac" info --json | python3 -c 'import json, sys; print(*json.load(sys.stdin)["tuning"])'); do
    "$kac" tune --method "$method" --plan --json >"$dir/out" 2>&1 && grep -q '"values"' "$dir/out" || fail "--method $method --plan: $(cat "$dir/out")"
    "$kac" tune --method "$method" --prompts "$dir/two.txt" --eval-prompts "$dir/two.txt" --steps 2 --rounds 1 --eval-samples 1 --no-sweep --rank 1 \
        -o "$dir/run-$method" >/dev/null 2>"$dir/err" || fail "--method $method: $(cat "$dir/err")"
    rm -rf "$dir/run-$method"
done

# prompts and rewards
refuses 2 "no prompt" --prompts "$dir/empty.txt" -o "$dir/run"
refuses 2 "no prompt" --prompts "$dir/remarks.txt" -o "$dir/run"
refuses 1 "cut.jsonl" --prompts "$dir/cut.jsonl" -o "$dir/run"
refuses 1 "none.txt" --prompts "$dir/none.txt" -o "$dir/run"
refuses 2 "say what to tune for" --model weights/shapes-64 --prompts "$dir/two.txt" -o "$dir/run"
refuses 2 "say what to tune on" --model weights/shapes-64 --reward brightness=0.5 -o "$dir/run"
refuses 2 "there is no reward" "${small[@]}" --reward clipp -o "$dir/run"
refuses 2 "methods that need none" "${small[@]}" --reward shapes-judge -o "$dir/run"
refuses 1 "none.safetensors" "${small[@]}" --init-lora "$dir/none.safetensors" -o "$dir/run"
refuses 1 "broken.safetensors" "${small[@]}" --init-lora "$dir/broken.safetensors" -o "$dir/run"

refuses 1 "lower --batch-size" "${small[@]}" --memory-limit 0.01 -o "$dir/run"

# folders
refuses 2 "--resume needs -o" --resume
refuses 2 "no run to go on with" --resume -o "$dir/none"

# mixing
refuses 2 "takes files" --mix
refuses 2 "takes files" --mix a.safetensors b.safetensors
refuses 2 "files come first" --mix a.safetensors 0.5 b.safetensors
refuses 1 "none.safetensors" --mix "$dir/none.safetensors" "$dir/none.safetensors" 0.5 -o "$dir/mix.safetensors"
refuses 1 "broken.safetensors" --mix "$dir/broken.safetensors" "$dir/broken.safetensors" 0.5 -o "$dir/mix.safetensors"

# a run
"$kac" tune "${small[@]}" --sweep --eval-every 1 --save-every 1 --keep 1 -o "$dir/run" >"$dir/out" 2>"$dir/err" || fail "a run: $(cat "$dir/err")"
[ -s "$dir/err" ] && fail "a run said: $(cat "$dir/err")"
grep -q "^tuned .*run/tuned.safetensors" "$dir/out" && grep -q "^page" "$dir/out" || fail "a run printed: $(cat "$dir/out")"
for file in run.json log.jsonl log.csv index.html tuned.safetensors checkpoints/tuned-000002.safetensors grids/round_000000.png \
    grids/round_000002.png grids/scale_050.png; do
    [ -s "$dir/run/$file" ] || fail "a run leaves no $file"
done
for file in checkpoint.safetensors checkpoints/tuned-000001.safetensors; do
    [ -e "$dir/run/$file" ] && fail "a run leaves $file"
done
python3 - "$dir/run" <<'P' || fail "what a run wrote"
import csv, json, struct, sys
lines = [json.loads(s) for s in open(sys.argv[1] + "/log.jsonl")]
kinds = [d["event"] for d in lines]
assert kinds == ["eval", "round", "eval", "round", "eval"] + ["sweep"] * 5 + ["end"], kinds
rounds = [d for d in lines if d["event"] == "round"]
table = list(csv.DictReader(open(sys.argv[1] + "/log.csv")))
assert [float(r["reward"]) for r in table] == [float("%.9g" % d["reward"]) for d in rounds]
assert [d["scale"] for d in lines if d["event"] == "sweep"] == [0, 0.25, 0.5, 0.75, 1]
assert lines[0]["distance"] == 0 or lines[0]["distance"] < 1e-6
assert set(lines[0]["held_out"]) == {"shapes-judge", "shapes-share"}
run = json.load(open(sys.argv[1] + "/run.json"))
assert run["state"] == "finished" and run["tune"] == "alignprop" and run["n_rounds"] == 2
assert run["before"]["reward"] == lines[0]["reward"] and run["after"]["reward"] == lines[4]["reward"]
with open(sys.argv[1] + "/tuned.safetensors", "rb") as f:
    meta = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))["__metadata__"]
assert json.loads(meta["kac_tune"])["options"]["rank"] == "2" and meta["ss_network_dim"] == "2"
png = open(sys.argv[1] + "/grids/round_000002.png", "rb").read()
assert b"parameters" in png and b"Tuned by: alignprop, Round: 2" in png
P
refuses 2 "holds a run already" "${small[@]}" -o "$dir/run"
refuses 2 "finished already" --resume -o "$dir/run"
"$kac" info "$dir/run" --json >"$dir/out" && grep -q '"tuning run"' "$dir/out" || fail "info of a tuning run"
"$kac" info "$dir/run/tuned.safetensors" --json | grep '"kohya"' >/dev/null || fail "info of the LoRA"
rm "$dir/run/index.html"
"$kac" report "$dir/run" >/dev/null && grep -q "Before and after" "$dir/run/index.html" || fail "report of a tuning run"

# the LoRA does in generate what it did in the evaluation, at half its scale too
plain=(generate --prompts-file "$dir/two.txt" --steer none --particles 1 --steps 2 --seed 1000 --previews=false)
for pair in tuned:round_000002 tuned.safetensors:0.5:scale_050; do
    lora=$dir/run/${pair%:*}
    [ "${pair%%:*}" = tuned ] && lora=$dir/run/tuned.safetensors
    "$kac" "${plain[@]}" --lora "$lora" -o "$dir/gen-${pair##*:}" >/dev/null 2>"$dir/err" || fail "--lora $lora: $(cat "$dir/err")"
    "$kac" score "$dir/gen-${pair##*:}" --json >"$dir/out" || fail "score"
    python3 - "$dir/run/log.jsonl" "$dir/out" "${pair##*:}" <<'P' || fail "kac generate --lora gives other rewards than the evaluation: $pair"
import json, sys
line = [d for d in map(json.loads, open(sys.argv[1])) if d.get("grid", "").endswith(sys.argv[3] + ".png")][0]
images = json.load(open(sys.argv[2]))["images"]
assert abs(sum(i["reward"] for i in images) / len(images) - line["reward"]) < 1e-4, (images, line)
P
done

# peft, and mixing the two
"$kac" tune "${small[@]}" --rounds 1 --seed 7 --lora-format peft -o "$dir/peft" >/dev/null 2>&1 || fail "peft"
"$kac" info "$dir/peft/tuned.safetensors" --json | grep '"peft"' >/dev/null || fail "info of the PEFT LoRA"
"$kac" tune --mix "$dir/run/tuned.safetensors" "$dir/peft/tuned.safetensors" 0.5 -o "$dir/mix.safetensors" --json >"$dir/out" ||
    fail "mix"
grep -q '"rank_max":[[:space:]]*4' "$dir/out" || fail "mix: $(cat "$dir/out")"
refuses 2 "exists" --mix "$dir/run/tuned.safetensors" "$dir/peft/tuned.safetensors" 0.5 -o "$dir/mix.safetensors"
"$kac" "${plain[@]}" --lora "$dir/mix.safetensors" -o "$dir/gen-mix" >/dev/null || fail "a mixture loads"

# numbers that get out of hand: said at which round, and a folder that can be read
"$kac" tune "${small[@]}" --rounds 4 --alpha 1e30 -o "$dir/nan" >"$dir/out" 2>"$dir/err"
[ $? -eq 1 ] && grep -q "round" "$dir/err" && [ "$(wc -l <"$dir/err")" -eq 1 ] || fail "no finite numbers: $(cat "$dir/err")"
"$kac" info "$dir/nan" --json | grep '"failed"' >/dev/null || fail "info of a failed run"
# --init-lora goes on from a file
"$kac" tune "${small[@]}" --rounds 1 --init-lora "$dir/run/tuned.safetensors" -o "$dir/again" >/dev/null 2>"$dir/err" || fail "--init-lora: $(cat "$dir/err")"
refuses 2 "another --lr" --resume -o "$dir/nan" --lr 0.5
mkdir "$dir/begun" && : >"$dir/begun/log.jsonl" # what a kill at the very beginning leaves
"$kac" tune "${small[@]:0:15}" --rounds 1 --train full --lr 1e-5 --dtype bf16 -o "$dir/begun" >/dev/null 2>"$dir/err" || fail "--train full: $(cat "$dir/err")"
"$kac" info "$dir/begun/tuned.safetensors" --json | grep '"conv_in.weight"' >/dev/null || fail "info of a whole network"
echo "$n refusals, $bad failed"
[ $bad -eq 0 ]
