#!/usr/bin/env bash
# Image to image and inpainting from the command line: what a run records, going on, the plan, and files and options that are refused.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail=0
kac() { "$KAC_BINARY" generate "a red circle" --steer none --particles 1 --steps 4 --seed 3 "$@"; }

# bad STATUS WORDS ARGUMENTS…: refused with this status, in one line that has these words, before anything is written
bad() {
    local want=$1 words=$2 rc=0
    shift 2
    kac "$@" -o "$dir/bad" >"$dir/out" 2>"$dir/err" || rc=$?
    if [ "$rc" != "$want" ] || ! grep -q -- "$words" "$dir/err" || [ "$(wc -l <"$dir/err")" != 1 ] || [ -e "$dir/bad" ]; then
        echo "$*: status $rc, wanted $want and \"$words\":"
        cat "$dir/err"
        rm -rf "$dir/bad"
        fail=1
    fi
}

python3 - "$dir" <<'EOF'
import struct, sys, zlib
def png(path, w, h, pixel, rows=None):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    raw = b"".join(b"\0" + b"".join(bytes(pixel(x, y)) for x in range(w)) for y in range(h if rows is None else rows))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    open(f"{sys.argv[1]}/{path}", "wb").write(data)
    return data
data = png("start.png", 64, 64, lambda x, y: (255, 4 * y, 128))
open(f"{sys.argv[1]}/cut.png", "wb").write(data[:len(data) // 2])
png("other.png", 90, 70, lambda x, y: (10, 200, 2 * x))
png("mask.png", 64, 64, lambda x, y: (255,) * 3 if y < 32 else (0,) * 3)
png("wide.png", 100000, 1, lambda x, y: (0, 0, 0))
png("claims.png", 100000, 100000, lambda x, y: (0, 0, 0), rows=0)
EOF
start=$dir/start.png mask=$dir/mask.png

bad 1 "cut.png" --init-img "$dir/cut.png"
bad 1 "100000x1 is larger" --init-img "$dir/wide.png"
bad 1 "100000x100000 is larger" --init-img "$dir/claims.png"
bad 1 "No such file" --init-img "$dir/none.png"
bad 1 "not a PNG" --init-img "$0"
bad 2 "less than one step" --init-img "$start" --strength 0
bad 2 "less than one step" --init-img "$start" --strength 0.2
bad 2 "must lie between 0 and 1" --init-img "$start" --strength 1.5
bad 2 "must lie between 0 and 1" --init-img "$start" --strength -1
bad 2 "needs --init-img" --mask "$mask"
bad 2 "needs --init-img" --strength 0.5
bad 2 "needs --mask" --init-img "$start" --paste
bad 2 "they must have one size" --init-img "$dir/other.png" --mask "$mask"
bad 1 "cut.png" --init-img "$start" --mask "$dir/cut.png"
bad 2 "2 negative prompts for 1 prompts" -n ugly -n grey
bad 2 "no number" --prompt-weighting -p "a (red:1.1.1) circle"
bad 2 "clip skip" --clip-skip 50
bad 1 "no autoencoder" --vae "$dir"

# A picture of another size is announced; the record says what was done.
kac -i "$dir/other.png" --strength 0.5 -o "$dir/a" 2>"$dir/err" >/dev/null
grep -q "resized to 82 × 64 and cropped" "$dir/err" || { cat "$dir/err"; fail=1; }
python3 - "$dir/a" <<'EOF'
import json, sys
run = json.load(open(sys.argv[1] + "/run.json"))
start = run["start"]
assert start["width"] == 90 and start["height"] == 70 and start["strength"] == 0.5 and len(start["sha256"]) == 64, start
assert run["n_steps"] == 2 and run["counts"]["denoiser"] == 4, (run["n_steps"], run["counts"])
EOF
"$KAC_BINARY" info "$dir/a/particle_00.png" | grep "Denoising strength: 0.5" >/dev/null || { echo "the PNG does not say the strength"; fail=1; }

# Steered with a mask: the same pixels again, in batches of another size.
for batch in 1 3; do
    "$KAC_BINARY" generate "a red circle" -i "$start" --mask "$mask" --paste --particles 3 --steps 4 --seed 3 -b $batch -o "$dir/s$batch" >/dev/null 2>&1
done
python3 - "$dir" <<'EOF'
import struct, sys, zlib
def rows(path):  # filtered rows of an 8-bit RGB PNG, undone
    data, at, idat = open(path, "rb").read(), 8, b""
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR": w, h = struct.unpack(">II", data[at + 8:at + 16])
        if kind == b"IDAT": idat += data[at + 8:at + 8 + n]
        at += 12 + n
    raw, out, prev = zlib.decompress(idat), [], bytes(3 * w)
    for y in range(h):
        f, line = raw[y * (3 * w + 1)], bytearray(raw[y * (3 * w + 1) + 1:(y + 1) * (3 * w + 1)])
        for i in range(3 * w):
            a, b, c = (line[i - 3] if i > 2 else 0), prev[i], (prev[i - 3] if i > 2 else 0)
            p = a + b - c
            paeth = a if abs(p - a) <= abs(p - b) and abs(p - a) <= abs(p - c) else b if abs(p - b) <= abs(p - c) else c
            line[i] = (line[i] + (0, a, b, (a + b) // 2, paeth)[f]) & 255
        prev = bytes(line)
        out.append(prev)
    return out
d = sys.argv[1]
one, three, start = (rows(f"{d}/{n}") for n in ("s1/particle_01.png", "s3/particle_01.png", "start.png"))
assert one == three, "the size of batches changes a picture"
assert one[32:] == start[32:] and one[:32] != start[:32], "--paste left the mask's black changed, or its white as it was"
EOF

# The plan counts the encoder too.
kac --plan --json >"$dir/plain.json"
kac --plan --json -i "$start" --mask "$mask" >"$dir/plan.json"
python3 - "$dir" <<'EOF'
import json, sys
plain, plan = (json.load(open(f"{sys.argv[1]}/{n}.json"))["bytes"] for n in ("plain", "plan"))
assert plan["run"] > plain["run"] and plan["model"] == plain["model"], (plain, plan)
EOF
exit $fail
