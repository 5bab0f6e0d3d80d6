#!/usr/bin/env bash
# A pixel model of greys, without prompts: steered by a classifier with and without gradient, from a picture, through the search of trees.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
model=bench/mnist/unet-16 digits=bench/mnist/classifier fail=0
kac() { "$KAC_BINARY" generate --model "$model" --eta 1 --steps 5 --seed 3 --lambda 1 "$@" >"$dir/out"; }

# grey NAME N: N pictures of 16 x 16 whose colours are equal, and finite rewards, the highest log-probability of the two labels
grey() {
    python3 - "$dir/$1" "$2" <<'EOF' || fail=1
import glob, json, math, struct, sys, zlib
folder, n = sys.argv[1], int(sys.argv[2])
files = sorted(glob.glob(folder + "/particle_*.png"))
rewards = [im["reward"] for im in json.load(open(folder + "/run.json"))["images"]]
assert len(files) == n == len(rewards), (len(files), len(rewards))
assert all(math.isfinite(r) and r <= 0 for r in rewards), rewards
for path in files:
    data, at, idat = open(path, "rb").read(), 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR":
            w, h, depth, color = struct.unpack(">IIBB", data[at + 8:at + 18])
        idat += data[at + 8:at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    assert (w, h, depth) == (16, 16, 8) and color in (0, 2), (path, w, h, depth, color)
    raw, each, last = zlib.decompress(idat), 3 if color == 2 else 1, None
    for y in range(h):
        line = bytearray(raw[y * (1 + w * each) + 1:(y + 1) * (1 + w * each)])
        kind = raw[y * (1 + w * each)]
        for i in range(len(line)):
            a = line[i - each] if i >= each else 0
            b = last[i] if last else 0
            c = last[i - each] if last and i >= each else 0
            p = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            line[i] = (line[i] + (0, a, b, (a + b) // 2, p)[kind]) % 256
        last = line
        assert color == 0 or line[0::3] == line[1::3] == line[2::3], (path, y)
EOF
}

kac --steer best-of-n --particles 3 --reward "classifier=$digits:two+four" -o "$dir/plain"
grey plain 3
kac --steer dps --particles 2 --reward "classifier=$digits:seven" -o "$dir/guided"
grey guided 2
cmp -s "$dir/plain/particle_00.png" "$dir/guided/particle_00.png" && echo "the gradient moved nothing" && fail=1
kac --steer dts --nfe 60 --particles 4 --reward "classifier=$digits:seven" -o "$dir/tree"
grey tree 4
kac --steer best-of-n --particles 1 --init-img tests/reward/data/emoji_u1f600.png --strength 0.6 --reward "classifier=$digits:zero" -o "$dir/start"
grey start 1

# "the highest of two" is not "any of two": the reward of both is that of one of them
"$KAC_BINARY" score "$dir/plain/particle_00.png" --reward "classifier=$digits:two" --reward "classifier=$digits:four" \
    --reward "classifier=$digits:two+four" --json >"$dir/score.json"
python3 -c '
import json, sys
a, b, most = json.load(open(sys.argv[1]))["images"][0]["rewards"].values()
assert most == max(a, b), (a, b, most)' "$dir/score.json" || fail=1
exit $fail
