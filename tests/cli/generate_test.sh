#!/usr/bin/env bash
# kac generate as a user runs it: one JSON document, a folder, a page; the same pictures for any batch, thread count and particle count;
# Ctrl-C, a kill and a full disk leave a readable folder, and --resume goes on to the same pictures.
set -uo pipefail
dir=$(mktemp -d "${TMPDIR:-/tmp}/kac-generate-XXXXXX")
trap 'rm -rf "$dir"' EXIT
kac=$KAC_BINARY
bad=0
fail() { echo "failed: $*" && bad=$((bad + 1)); }
prompt="two green stars"

# Pixels only: what stands in the text chunks differs.
pixels() {
    python3 - "$@" <<'END'
import struct, sys
for path in sys.argv[1:]:
    data, at = open(path, "rb").read(), 8
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind in (b"IHDR", b"IDAT"):
            sys.stdout.write(kind.decode() + data[at + 8:at + 8 + n].hex())
        at += 12 + n
    print()
END
}
same() { # what, file, file
    [ -s "$2" ] && [ -s "$3" ] && [ "$(pixels "$2")" = "$(pixels "$3")" ] || fail "$1: $2 and $3 differ"
}
json() { python3 -c "import json,sys; d=json.load(open(sys.argv[1])); print($2)" "$1"; }

# a steered run, quiet, with one JSON document
"$kac" generate "$prompt" --steps 4 --score-every 1 --particles 3 -s 5 -o "$dir/fk" --json >"$dir/out.json" 2>"$dir/err" || fail "fk: $(cat "$dir/err")"
[ -s "$dir/err" ] && fail "not quiet: $(cat "$dir/err")"
[ "$(json "$dir/out.json" 'd["folder"].endswith("fk"), len(d["run"]["images"]), d["run"]["state"]')" = "True 3 finished" ] ||
    fail "the JSON document is $(head -c 300 "$dir/out.json")"
for file in run.json events.jsonl index.html particle_00.png particle_02.png; do [ -s "$dir/fk/$file" ] || fail "no $file"; done
"$kac" info "$dir/fk/particle_01.png" >"$dir/out"
grep -q "^  parameters *$prompt" "$dir/out" || fail "the picture does not tell its prompt"
"$kac" info --json "$dir/fk/particle_01.png" | python3 -c '
import json,sys
d = json.load(sys.stdin)
assert d["width"] == 64 and d["text"]["kac"]["prompt"] == "two green stars" and "Seed: 5" in d["text"]["parameters"]' || fail "info of a picture"
"$kac" info "$dir/fk" >"$dir/out"
grep -q '^state *finished' "$dir/out" || fail "info of a run"
# its own options reproduce it
python3 -c "
import json,sys
run = json.load(open(sys.argv[1]))
o = {k: v for k, v in run['options'].items() if k in run['given'] and k not in ('output', 'json')}
json.dump(o, open(sys.argv[2], 'w'))" "$dir/fk/run.json" "$dir/options.json"
"$kac" generate --config "$dir/options.json" -o "$dir/again" >"$dir/out" || fail "the run's own options"
for i in 0 1 2; do same "the run's own options" "$dir/fk/particle_0$i.png" "$dir/again/particle_0$i.png"; done
"$kac" generate "$prompt" --steps 4 -o "$dir/fk" >"$dir/out" 2>"$dir/err"
[ $? -eq 2 ] && grep -q "holds a run already" "$dir/err" || fail "a run is written over another"

# plain samples do not depend on batch, threads or how many there are
"$kac" generate "$prompt" --steer none --steps 3 --particles 3 -s 5 -o "$dir/plain" >"$dir/out" || fail "none"
"$kac" generate "$prompt" --steer none --steps 3 --nfe 11 -s 5 -o "$dir/budget" >"$dir/out" || fail "none --nfe"
python3 - "$dir/budget/run.json" <<'EOF' || fail "--nfe 11 at 3 steps is 3 particles and 9 evaluations"
import json, sys
run = json.load(open(sys.argv[1]))
assert run["n_particles"] == 3 and len(run["images"]) == 3 and run["counts"]["nfe"] == 9, run["counts"]
EOF
"$kac" generate "$prompt" --steer none --steps 3 --particles 3 -s 5 -b 1 -t 1 -o "$dir/single" >"$dir/out" || fail "-b 1 -t 1"
"$kac" generate "$prompt" --steer none --steps 3 --particles 1 --first-particle 2 -s 5 -o "$dir/alone" >"$dir/out" || fail "--first-particle"
for i in 0 1 2; do same "batch and threads" "$dir/plain/particle_0$i.png" "$dir/single/particle_0$i.png"; done
same "--first-particle 2" "$dir/plain/particle_02.png" "$dir/alone/particle_02.png"
"$kac" generate "$prompt" --steps 3 --particles 3 -s 5 --lambda 0 -o "$dir/zero" >"$dir/out" || fail "lambda 0"
same "lambda 0" "$dir/plain/particle_01.png" "$dir/zero/particle_01.png"

# several prompts
printf 'a red circle\n# not this\n\na blue square\n' >"$dir/prompts.txt"
"$kac" generate --prompts-file "$dir/prompts.txt" --steer best-of-n --steps 2 --particles 2 -o "$dir/many" >"$dir/out" || fail "prompts file"
[ "$(find "$dir/many" -maxdepth 1 -name 'group_0[01]_particle_0[01].png' | wc -l)" -eq 4 ] || fail "two prompts: $(ls "$dir/many")"

# a plan runs nothing
"$kac" generate "$prompt" --plan --json -o "$dir/plan" >"$dir/plan.json" || fail "plan"
[ "$(json "$dir/plan.json" 'd["bytes"]["total"] > 1e7 and d["flops"]["denoiser_call"] > 1e8')" = True ] || fail "plan: $(cat "$dir/plan.json")"
[ -e "$dir/plan" ] && fail "a plan wrote a folder"

# an exact mixture
cat >"$dir/mixture.json" <<'END'
{"_class_name": "GaussianMixture", "weights": [0.5, 0.5], "means": [[-1], [1]], "covariances": [[[0.25]], [[0.25]]],
 "schedule": {"alphas_cumprod": [0.98, 0.9, 0.7, 0.4, 0.15, 0.03, 0.003]}, "kernel": "exact"}
END
printf '{"A": [[0]], "b": [1]}' >"$dir/reward.json"
"$kac" generate --model "$dir/mixture.json" --reward "quadratic=$dir/reward.json" --lambda 1 --score-every 1 --particles 4000 -o "$dir/mix" >"$dir/out" ||
    fail "mixture"
[ "$(json "$dir/mix/run.json" 'abs(d["log_z"][0] - 0.5588) < 0.06')" = True ] || fail "log Z of the mixture: $(json "$dir/mix/run.json" 'd["log_z"]')"
[ -s "$dir/mix/samples.safetensors" ] || fail "no samples"

# stopped, killed: the folder stays readable and goes on to the same pictures
long=("$prompt" --steps 12 --particles 2 -s 9 --score-every 3)
"$kac" generate "${long[@]}" -o "$dir/whole" >"$dir/out" || fail "the whole run"
stopped() { # signal, exit code
    local run=$dir/stopped-$1
    "$kac" generate "${long[@]}" -o "$run" >"$dir/out" 2>"$dir/err" &
    local pid=$!
    for _ in $(seq 600); do
        [ "$(grep -c '"step"' "$run/events.jsonl" 2>/dev/null)" -ge 4 ] 2>/dev/null && break
        sleep 0.05
    done
    kill "-$1" $pid
    wait $pid
    local code=$?
    [ $code -eq "$2" ] || fail "SIG$1: exit code $code, wanted $2: $(cat "$dir/err")"
    "$kac" info "$run" >"$dir/out" || fail "SIG$1: the folder cannot be read"
    "$kac" report "$run" >"$dir/out" || fail "SIG$1: no page"
    "$kac" generate --resume -o "$run" >"$dir/out" 2>"$dir/err" || fail "SIG$1: --resume: $(cat "$dir/err")"
    for i in 0 1; do same "SIG$1, then --resume" "$dir/whole/particle_0$i.png" "$run/particle_0$i.png"; done
}
stopped INT 130
stopped KILL 137
"$kac" generate --resume -o "$dir/whole" >"$dir/out" 2>"$dir/err"
[ $? -eq 2 ] && grep -q "finished" "$dir/err" || fail "--resume of a finished run: $(cat "$dir/err")"

# a disk that is full at some moment
for limit in 1 2 4 6 12; do
    run=$dir/full-$limit
    (ulimit -f $limit && exec "$kac" generate "$prompt" --steps 2 --particles 2 -o "$run") >"$dir/out" 2>"$dir/err"
    code=$?
    if [ $code -ne 0 ]; then
        [ $code -eq 1 ] && [ "$(wc -l <"$dir/err")" -eq 1 ] || fail "disk full at $limit KiB: exit code $code: $(cat "$dir/err")"
    fi
    [ $limit -gt 1 ] || [ $code -eq 1 ] || fail "1 KiB is enough for a run"
    for file in "$run"/*.png "$run"/previews/*.png; do
        [ ! -e "$file" ] || "$kac" info "$file" >"$dir/out" || fail "disk full at $limit KiB: $file is half-written"
    done
    [ ! -e "$run/run.json" ] || "$kac" info "$run" >"$dir/out" || fail "disk full at $limit KiB: run.json is half-written"
    leftovers=$(find "$run" -name '*tmp*' -o -name '.*' -type f 2>/dev/null)
    [ -z "$leftovers" ] || fail "disk full at $limit KiB: left $leftovers"
done

echo "$bad failed"
[ $bad -eq 0 ]
