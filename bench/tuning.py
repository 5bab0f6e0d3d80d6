#!/usr/bin/env python3
"""What reward tuning does to the shipped model, on prompts that it was not tuned on.

    python3 bench/tuning.py --kac build/kac --out tuning            # about an hour on two cores; goes on where it stopped
    python3 bench/tuning.py --out tuning --only alignprop,ddpo      # some of the rows

Every row of ROWS is tuned with every seed on weights/shapes-prompts/train.tsv; then the base model and each result draw two pictures
for each prompt of bench/prompts_shapes.tsv with the same noise, and rewards and judge score them. Prints the tables of bench/TUNING.md;
needs Python alone.
"""
import argparse
import json
import math
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SCORES = ["clip", "shapes-judge", "shapes-share", "shapes-count", "compressibility", "color=#0040ff"]
SAMPLER = ["--sampling-method", "ddim", "--eta", "1", "--steps", "10", "--cfg-scale", "1"]
COMMON = [*SAMPLER, "--eval-prompts", os.path.join(HERE, "..", "weights", "shapes-prompts", "eval.tsv"), "--batch", "8", "--save-every", "0",
          "--no-sweep", "--threads", "1"]
GRADIENT = ["--method", "alignprop", "--trunc", "fixed:5", "--lr", "1e-3", "--clip", "0.02"]
ALIGNPROP = [*GRADIENT, "--lr-schedule", "cosine", "--lr-updates", "150", "--ema", "0.98", "--rounds", "150", "--eval-every", "50"]
SHORT = [*GRADIENT, "--lr-schedule", "cosine", "--lr-updates", "40", "--rounds", "40", "--eval-every", "20"]
VALUE = ["--accum", "4", "--lr", "3e-4", "--rounds", "1000", "--eval-every", "0"]
# name: (options, seeds)
ROWS = {
    "alignprop": ([*ALIGNPROP, "--reward", "clip"], 3),
    "ddpo": (["--method", "ddpo", *VALUE, "--reward", "clip", "--time", "220"], 3),
    "color": ([*SHORT, "--reward", "color=#0040ff"], 1),
    "compressibility": ([*SHORT, "--reward", "compressibility"], 1),
    "clip+color": ([*SHORT, "--reward", "clip", "--reward", "color=#0040ff:0.5"], 1),
    "count": (["--method", "nft", *VALUE, "--reward", "shapes-count", "--time", "100"], 1),
}


def mean_half(xs):
    """Mean and half of its 95 % interval."""
    m = sum(xs) / len(xs)
    return m, 1.96 * math.sqrt(sum((x - m) ** 2 for x in xs) / max(1, len(xs) - 1) / len(xs))


def tune(a, name, options, seed):
    folder = os.path.join(a.out, f"{name}-{seed}")
    lora = os.path.join(folder, "tuned.safetensors")
    state = json.load(open(os.path.join(folder, "run.json"))).get("state") if os.path.exists(os.path.join(folder, "run.json")) else None
    if state != "finished":
        subprocess.run([a.kac, "tune", *COMMON, *options, "--seed", str(seed), "-o", folder] + (["--resume"] if state else []), check=True)
    return folder, lora


def scored(a, name, lora):
    """{reward: [one number a prompt]}, the mean over its pictures."""
    done = os.path.join(a.out, f"scores-{name}.json")
    if os.path.exists(done):
        return json.load(open(done))
    folder, listing = os.path.join(a.out, f"pictures-{name}"), os.path.join(a.out, "prompts.txt")
    prompts = [line.rstrip("\n").split("\t")[1] for line in open(os.path.join(HERE, "prompts_shapes.tsv"))]
    with open(listing, "w") as f:
        f.write("\n".join(prompts) + "\n")
    command = [a.kac, "generate", "--prompts-file", listing, "--steer", "none", "--particles", "2", *SAMPLER,
               "--seed", "1", "--no-previews", "-o", folder] + (["--lora", lora] if lora else [])
    if not os.path.exists(os.path.join(folder, "index.html")):
        subprocess.run(command, check=True)
    out = {}
    for reward in SCORES:
        text = subprocess.run([a.kac, "score", folder, "--reward", reward, "--json"], check=True, stdout=subprocess.PIPE).stdout
        by_file = {os.path.basename(r["file"]): r["reward"] for r in json.loads(text)["images"]}
        per = [[] for _ in prompts]
        for im in json.load(open(os.path.join(folder, "run.json")))["images"]:
            per[im["group"]].append(by_file[im["file"]])
        out[reward] = [sum(g) / len(g) for g in per]
    with open(done, "w") as f:
        json.dump(out, f)
    return out



def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kac", default="build/kac")
    p.add_argument("--out", default="tuning")
    p.add_argument("--only", default=",".join(ROWS))
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    base = scored(a, "base", None)
    print("| model | " + " | ".join(SCORES) + " |\n|---|" + "---|" * len(SCORES))
    print("| base | " + " | ".join("%.4f ± %.4f" % mean_half(base[s]) for s in SCORES) + " |")
    for name in filter(None, a.only.split(",")):
        options, seeds = ROWS[name]
        for seed in range(1, seeds + 1):
            folder, lora = tune(a, name, options, seed)
            got = scored(a, f"{name}-{seed}", lora)
            cells = ["%.4f (%+.4f ± %.4f)" % (mean_half(got[s])[0], *mean_half([x - y for x, y in zip(got[s], base[s])])) for s in SCORES]
            print(f"| {name}, seed {seed} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
