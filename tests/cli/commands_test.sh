#!/usr/bin/env bash
# info, score, run and help as a user meets them; generate and what is refused have tests of their own.
set -uo pipefail
dir=$(mktemp -d "${TMPDIR:-/tmp}/kac-commands-XXXXXX")
trap 'rm -rf "$dir"' EXIT
kac=$KAC_BINARY
bad=0
fail() { echo "failed: $*" && bad=$((bad + 1)); }
# holds COMMAND… -- PYTHON: the command's JSON document d fulfils the expression
holds() {
    local command=()
    while [ "$1" != -- ]; do command+=("$1") && shift; done
    "$kac" "${command[@]}" --json >"$dir/out" 2>"$dir/err" </dev/null || fail "kac ${command[*]}: $(cat "$dir/err")"
    [ -s "$dir/err" ] && fail "kac ${command[*]} said: $(cat "$dir/err")"
    python3 -c "import json,sys; d = json.load(open(sys.argv[1])); assert $2" "$dir/out" 2>"$dir/err" ||
        fail "kac ${command[*]}: not $2: $(head -c 400 "$dir/out")"
}
fixture=tests/report/fixture

"$kac" --help >"$dir/all" || fail "--help"
for command in generate score report info run convert; do
    "$kac" $command --help >"$dir/out" || fail "$command --help"
    grep -q "^usage: kac $command" "$dir/out" && grep -q -- "--json" "$dir/out" || fail "$command --help: $(head -3 "$dir/out")"
    "$kac" help $command | cmp -s - "$dir/out" || fail "help $command"
    grep -q "^  $command " "$dir/all" || fail "--help does not list $command"
done
"$kac" generate --help >"$dir/out"
for option in --lambda --ess-threshold --potential --particles --sampling-method; do
    grep -q -- " $option " "$dir/out" || fail "generate --help does not tell $option"
done
"$kac" generate --steer none --help >"$dir/out"
grep -q -- "--lambda" "$dir/out" && fail "--steer none --help tells --lambda"
[ "$("$kac" --version)" = "kac $("$kac" info --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["kac"])')" ] || fail "--version"
said=$( (ulimit -f 0 && exec "$kac" info --json) 2>&1 >"$dir/full") && fail "a full standard output goes unnoticed"
[ "$(wc -l <<<"$said")" -eq 1 ] && [[ $said == *"standard output"* ]] || fail "a full standard output: $said"

holds info -- 'd["threads"] >= 1 and "fk" in d["steering"] and d["backends"]'
holds info weights/shapes-64 -- 'd["kind"] == "model" and {r["name"] for r in d["components"]} >= {"unet", "vae", "text_encoder"}'
holds info weights/shapes-64 -- 'd["parameters"] == sum(r.get("parameters", 0) for r in d["components"]) > 1e6'
holds info weights/shapes-64/unet -- 'd["class"] == "UNet2DConditionModel" and d["bytes"] > 1e6'
holds info weights/shapes-64/vae/diffusion_pytorch_model.safetensors -- 'len(d["tensors"]) > 20 and d["tensors"][0]["shape"]'
holds info $fixture -- 'd["kind"] == "run" and len(d["images"]) == 8 and d["state"] == "finished"'
holds info $fixture/group_00_particle_00.png -- 'd["kind"] == "picture" and d["width"] == 24'

# the ids are those of transformers' CLIPTokenizer
holds run tokenizer --model weights/shapes-64 --text "two green stars" -- 'd["input_ids"][0] == max(d["input_ids"]) - 1 and len(d["input_ids"]) == 5'
holds run tokenizer --model weights/shapes-64 --text "" -- 'len(d["input_ids"]) == 2'
holds run tokenizer --model weights/shapes-64 --text "two green stars" --max-length 9 -- 'len(d["input_ids"]) == 9'
holds run tokenizer --model weights/shapes-64 --text $'a \xff b' -- 'len(d["input_ids"]) > 3'
[ "$("$kac" run tokenizer --model weights/shapes-64 --text "two green stars" | wc -w)" -eq 5 ] || fail "run tokenizer without --json"

# score: by prompt, ranked, kept, as CSV
holds score $fixture --reward jpeg:-1 -- '[r["reward"] for r in d["images"]] == sorted((r["reward"] for r in d["images"]), reverse=True)'
holds score $fixture --reward jpeg --keep 3 -- 'len(d["images"]) == 3 and d["images"][0]["rank"] == 1'
holds score $fixture/group_00_particle_00.png --prompt "a red circle" --reward clip --reward jpeg:0.5 --csv "$dir/list.csv" -- \
    'abs(d["images"][0]["reward"] - sum(v * (0.5 if k == "jpeg" else 1) for k, v in d["images"][0]["rewards"].items())) < 1e-9'
python3 -c "
import csv,sys
rows = list(csv.DictReader(open(sys.argv[1])))
assert len(rows) == 1 and rows[0]['prompt'] == 'a red circle' and float(rows[0]['reward']) != 0" "$dir/list.csv" || fail "CSV: $(cat "$dir/list.csv")"

echo "$bad failed"
[ $bad -eq 0 ]
