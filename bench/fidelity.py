#!/usr/bin/env python3
"""Does steering by shapes-clip make pictures obey their prompts? The judge (reward shapes-judge, a program that looks at the
pixels) says so, by category, for one plain sample, for the best of 8 by shapes-clip and for fk with 8 particles: equal numbers of
network evaluations for the last two.

    python3 bench/fidelity.py --kac build/kac --out fidelity        # about half an hour on two cores; goes on where it stopped

Prompts: bench/prompts_shapes.tsv, 203 of combinations that the training never saw and 40 of the categories that have no such
combinations (single, two). Prints the table of bench/FIDELITY.md; needs Python alone.
"""
import argparse
import json
import math
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
METHODS = ["best-of-n", "fk"]  # the samples of best-of-n are plain ones: their mean is the fidelity of one sample


def wilson(k, n, z=1.96):
    """95 % interval of a proportion."""
    p = k / n
    mid = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return mid - half, mid + half


def run(a, method, prompts):
    folder = os.path.join(a.out, method)
    done = os.path.join(folder, "run.json")
    state = json.load(open(done)).get("state") if os.path.exists(done) else None
    if state != "finished":
        listing = os.path.join(a.out, "prompts.txt")
        with open(listing, "w") as f:
            f.write("\n".join(t for _, t in prompts) + "\n")
        command = [a.kac, "generate", "--prompts-file", listing, "--steer", method, "--particles", "8", "--steps", str(a.steps),
                   "--seed", str(a.seed), "--no-previews", "-o", folder] + (["--resume"] if state else [])
        subprocess.run(command + a.more, check=True)
    return folder, json.load(open(done))


def judged(a, folder):
    """{file: 1 or 0}"""
    out = subprocess.run([a.kac, "score", folder, "--reward", "shapes-judge", "--json"], check=True, stdout=subprocess.PIPE).stdout
    return {os.path.basename(r["file"]): r["reward"] for r in json.loads(out)["images"]}


def outcomes(run_json, right, prompts):
    """Per prompt: (share of right samples, is the picture of the highest reward right, is any)."""
    per = [[] for _ in prompts]
    for im in run_json["images"]:
        per[im["group"]].append((im["rank"], right[im["file"]]))
    return [(sum(r for _, r in g) / len(g), min(g)[1], max(r for _, r in g)) for g in per]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kac", default="build/kac")
    p.add_argument("--out", default="fidelity")
    p.add_argument("--steps", type=int, default=25)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--limit", type=int, default=0, help="only every so-manieth prompt (0: all)")
    p.add_argument("more", nargs="*", help="after --: further options of kac generate")
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    prompts = [tuple(line.rstrip("\n").split("\t")) for line in open(os.path.join(HERE, "prompts_shapes.tsv"))]
    if a.limit:
        prompts = prompts[:: a.limit]
    result = {}
    for m in METHODS:
        folder, run_json = run(a, m, prompts)
        result[m] = outcomes(run_json, judged(a, folder), prompts)
        result[m + " counts"] = run_json["counts"]
    with open(os.path.join(a.out, "fidelity.json"), "w") as f:
        json.dump({"prompts": prompts, **result}, f)
    print("| category | prompts | one sample | best of 8 by CLIP | fk, 8 particles | any of 8 |\n|---|---|---|---|---|---|")
    cats = list(dict.fromkeys(c for c, _ in prompts))
    for c in cats + ["all"]:
        i = [k for k, (cat, _) in enumerate(prompts) if c in (cat, "all")]
        n = len(i)
        one = sum(result["best-of-n"][k][0] for k in i) / n
        best, fk = (sum(result[m][k][1] for k in i) for m in METHODS)
        any_ = sum(result["best-of-n"][k][2] for k in i)
        cells = [f"{one:.3f}"] + [f"{k / n:.3f} [{wilson(k, n)[0]:.3f}, {wilson(k, n)[1]:.3f}]" for k in (best, fk)] + [f"{any_ / n:.3f}"]
        print(f"| {c} | {n} | " + " | ".join(cells) + " |")
    for m in METHODS:  # paired: the same prompts with and without steering
        d = [result[m][k][1] - result["best-of-n"][k][0] for k in range(len(prompts))]
        mean = sum(d) / len(d)
        se = math.sqrt(sum((x - mean) ** 2 for x in d) / (len(d) - 1) / len(d))
        print(f"{m} − one sample: {100 * mean:+.1f} points ± {196 * se:.1f} (95 %, paired over prompts); counts {result[m + ' counts']}")


if __name__ == "__main__":
    sys.exit(main())
