#!/usr/bin/env bash
# kac score on folders as people have them: prompts from several programs' metadata, a broken picture among good ones, copies of the best.
set -uo pipefail
dir=$(mktemp -d "${TMPDIR:-/tmp}/kac-score-XXXXXX")
trap 'rm -rf "$dir"' EXIT
kac=$KAC_BINARY
bad=0
fail() { echo "failed: $*" && bad=$((bad + 1)); }

# holds CODE ARGUMENTS… -- EXPRESSION: exit code, one JSON document d, the expression is true; rows are d["images"]
holds() {
    local code=$1 expression=${!#} got
    "$kac" score "${@:2:$#-3}" --json >"$dir.out" 2>"$dir.err" </dev/null
    got=$?
    [ $got -eq "$code" ] || fail "score ${*:2:$#-3}: exit code $got: $(head -3 "$dir.err")"
    python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
rows = d.get("images", [])
assert eval(sys.argv[2]), json.dumps(d)[:600]' "$dir.out" "$expression" || fail "score ${*:2:$#-3}: not $expression"
    rm -f "$dir.out"
}

# ---- pictures with the metadata of several programs ----
mkdir -p "$dir/in/deep/er" "$dir/empty"
python3 - "$dir/in" <<'END'
import json, struct, sys, zlib
folder = sys.argv[1]
def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
def png(path, rgb, **texts):
    rows = b"".join(b"\0" + bytes(rgb) * 16 for _ in range(16))
    body = b"".join(chunk(b"iTXt", k.encode() + b"\0\0\0\0\0" + v.encode()) for k, v in texts.items())
    open(folder + "/" + path, "wb").write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)) +
        body + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
def node(kind, **inputs): return {"class_type": kind, "inputs": inputs}
simple = {"3": node("KSampler", positive=["6", 0], negative=["7", 0], seed=1), "6": node("CLIPTextEncode", text="a comfy cat", clip=["4", 1]),
          "7": node("CLIPTextEncode", text="ugly", clip=["4", 1])}
linked = {"1": node("SamplerCustomAdvanced", guider=["2", 0]), "2": node("BasicGuider", conditioning=["5", 0]),
          "5": node("FluxGuidance", conditioning=["6", 0]), "6": node("CLIPTextEncode", text=["8", 0]), "8": node("PrimitiveString", value="a linked dog")}
two = {"1": node("KSampler", positive=["6", 0]), "2": node("KSampler", positive=["7", 0]), "6": node("E", text="one"), "7": node("E", text="two")}
loop = {"1": node("KSampler", positive=["1", 0]), "2": node("X", text=["2", 0]), "3": node("KSampler", positive=["2", 0])}
png("a.png", (250, 0, 0), kac=json.dumps({"prompt": "a kac fox"}), parameters="not this\nSteps: 3")
png("b.png", (200, 0, 0), parameters="an old\nowl\nNegative prompt: bad\nSteps: 20, Seed: 1")
png("c.png", (150, 0, 0), parameters="Negative prompt: bad\nSteps: 20", prompt=json.dumps(simple))
png("d.png", (100, 0, 0), prompt=json.dumps(linked), workflow="{}")
png("e.png", (50, 0, 0), prompt=json.dumps(two))
png("f.png", (40, 0, 0), prompt=json.dumps(loop))
png("g.png", (30, 0, 0), prompt="[" * 5000, Comment=json.dumps({"prompt": "a novel"}))
png("h.png", (20, 0, 0), invokeai_metadata=json.dumps({"positive_prompt": "invoked"}), prompt="{")
png("i.png", (10, 0, 0))
png("../shapes.png", (10, 0, 0), parameters="a red circle")
png("deep/a.png", (255, 0, 0))
png("deep/er/z.png", (1, 0, 0))
END
red=plugin=$KAC_BUILD/tests/plugins/plugin_redness.so
holds 0 "$dir/in" --reward "$red" -- '[r.get("prompt") for r in rows] == ["a kac fox", "an old\nowl", "a comfy cat", "a linked dog", None, None, "a novel", "invoked", None]'
holds 0 "$dir/in" --reward "$red" --prompt x --keep 2 -- '[(r["rank"], r["file"][-5:], r["prompt"]) for r in rows] == [(1, "a.png", "x"), (2, "b.png", "x")]'
holds 0 "$dir/in" -r --reward "$red" -- '[r["file"][-8:] for r in rows][:2] == ["ep/a.png", "in/a.png"] and len(rows) == 11 and rows[-1]["file"].endswith("er/z.png")'
holds 0 "$dir/in/d.png" "$dir/in/a.png" --reward "$red" -- 'len(rows) == 2 and abs(rows[0]["reward"] - 250 / 255) < 1e-12'
holds 2 "$dir/empty" --reward "$red" -- '"--recursive" in d["error"] and d["exit_code"] == 2'
holds 2 "$dir/empty" -r --reward "$red" -- '"holds no pictures" in d["error"]'

# ---- combinations: the numbers add up ----
holds 0 "$dir/in" --reward "$red" --reward "$red 2" --reward jpeg:-0.1,target=0.5 --combine sum -- \
    'all(abs(r["reward"] - (v := list(r["rewards"].values()))[0] - v[1] - 0.1 * abs(v[2] - 0.5)) < 1e-9 and "uncertainty" not in r for r in rows)'
holds 0 "$dir/in" --reward "$red" --reward "$red" --combine mean-std=2 -- \
    'all(r["uncertainty"] == 0 and len(r["rewards"]) == 2 for r in rows) and d["combine"] == "mean-std=2" and d["rewards"][1]["name"].endswith("#2")'
holds 0 "$dir/in" --reward "$red,z" -- 'abs(sum(r["reward"] for r in rows)) < 1e-9 and abs(sum(r["reward"] ** 2 for r in rows) / len(rows) - 1) < 1e-9'
holds 2 "$dir/in" --reward "$red" --combine sun -- '"did you mean \"sum\"" in d["error"]'
holds 2 "$dir/in" --reward "jpeg,hing=1" -- '"did you mean \"hinge\"" in d["error"]'
holds 2 "$dir/in" --reward jpeg --prompt $'\xff' -- '"UTF-8" in d["error"]'

# ---- a broken picture among good ones ----
mkdir "$dir/mixed"
cp "$dir"/in/[a-d].png "$dir/mixed/"
head -c 90 "$dir/in/a.png" >"$dir/mixed/cut.png"
echo "no picture" >"$dir/mixed/text.jpg"
holds 1 "$dir/mixed" --reward "$red" -- 'len(rows) == 4 and sorted(f["file"][-7:] for f in d["failed"]) == ["cut.png", "ext.jpg"] and all(f["error"] for f in d["failed"])'
[ "$(wc -l <"$dir.err")" -eq 3 ] && grep -q "2 of 6 pictures could not be scored" "$dir.err" || fail "messages: $(cat "$dir.err")"
holds 1 "$dir/in" --reward "$red,clamp=0.5/1,z=0.5/1" --reward jpeg --combine product -- 'len(rows) == 3 and len(d["failed"]) == 6 and all("wants positive rewards" in f["error"] for f in d["failed"])'
"$kac" score "$dir/mixed/cut.png" "$dir/mixed/text.jpg" --reward "$red" --json >"$dir.out" 2>"$dir.err" && fail "all broken, and it is fine"
[ "$(wc -l <"$dir.err")" -eq 1 ] && grep -q "none of the 2 pictures could be scored; the first: .*cut.png" "$dir.err" || fail "all broken: $(cat "$dir.err")"
# a prompt that the reward refuses, or none, costs that picture alone
cp "$dir/in/a.png" "$dir/in/i.png" "$dir/empty/"
mv "$dir/shapes.png" "$dir/empty/"
holds 2 "$dir/in/i.png" --reward shapes-judge -- '"give --prompt" in d["error"]'
holds 1 "$dir/empty" --reward shapes-judge -- 'len(rows) == 1 and len(d["failed"]) == 2 and any("does not say its prompt" in f["error"] for f in d["failed"]) and any("no shape" in f["error"] for f in d["failed"])'

# ---- copies ----
"$kac" score "$dir/in" -r --reward "$red" --keep 3 --copy-to "$dir/best/of" --csv "$dir/list.csv" >"$dir.out" || fail "copy-to"
[ "$(ls "$dir/best/of" | tr '\n' ' ')" = "1-a.png 2-a.png 3-b.png " ] || fail "copies: $(ls "$dir/best/of")"
cmp -s "$dir/best/of/1-a.png" "$dir/in/deep/a.png" && cmp -s "$dir/best/of/3-b.png" "$dir/in/b.png" || fail "a copy differs"
[ "$(wc -l <"$dir/list.csv")" -ge 4 ] || fail "CSV: $(cat "$dir/list.csv")"
rm "$dir/best/of/1-a.png" "$dir/best/of/3-b.png"
holds 2 "$dir/in" -r --reward "$red" --keep 3 --copy-to "$dir/best/of" -- '"2-a.png exists already; nothing was copied" in d["error"]'
[ "$(ls "$dir/best/of")" = 2-a.png ] || fail "copied beside what was there: $(ls "$dir/best/of")"
touch "$dir/file"
holds 1 "$dir/in" --reward "$red" --copy-to "$dir/file" -- '"error" in d'
rm -f "$dir.out" "$dir.err"
[ $bad -eq 0 ] || exit 1
echo "score: all as expected"
