#!/usr/bin/env python3
"""kac bench as a user meets it: refusals before anything runs, the same pictures as kac generate, two processes that are killed at
random moments and still finish every cell once, what is done again and what is not."""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib

KAC = os.environ["KAC_BINARY"]
bad = 0


def check(good, what):
    global bad
    if not good:
        print("failed:", what)
        bad += 1


def kac(*words, code=0, timeout=600):
    r = subprocess.run([KAC, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=timeout)
    check(r.returncode == code, f"kac {' '.join(words)}: exit code {r.returncode}, wanted {code}; {r.stderr[-300:]}")
    return r


def pixels(path):
    data, at, out = open(path, "rb").read(), 8, b""
    while at < len(data):
        n = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            out += data[at + 8 : at + 8 + n]
        at += 12 + n
    return zlib.decompress(out)


def results(folder):
    cells, broken = {}, 0
    for line in open(os.path.join(folder, "results.jsonl")):
        try:
            r = json.loads(line)
        except ValueError:
            broken += line.strip() != ""
            continue
        cells.setdefault((r["method"], r["budget"], r["prompt"], r["seed"]), []).append(r)
    return cells, broken


def write(folder, name, description):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        json.dump(description, f)
    return path


def refuses(words, text, folder):
    before = sorted(os.listdir(folder))
    r = kac("bench", *words, "-o", os.path.join(folder, "refused"), code=2)
    check(text in r.stderr and r.stderr.count("\n") == 1 and r.stdout == "", f"{words}: it said {r.stderr!r}, wanted {text!r}")
    check(sorted(os.listdir(folder)) == before, f"{words}: left a file")


def killed(path, folder):
    """Two processes at a time, killed at random moments, later ones with more time, until one ends by itself."""
    rng = random.Random(5)
    for round in range(30):
        pair = [subprocess.Popen([KAC, "bench", path, "-o", folder, "--keep", "none", "-t", "1"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL) for _ in range(2)]
        until = time.time() + rng.uniform(0.1, 2 + round)
        while time.time() < until and any(p.poll() is None for p in pair):
            time.sleep(0.01)
        done = [p.poll() for p in pair]
        for p in pair:
            if p.poll() is None:
                p.send_signal(signal.SIGKILL)
            p.wait()
        if 0 in done:
            break


def main():
    folder = tempfile.mkdtemp(prefix="kac-bench-")
    try:
        with open(os.path.join(folder, "prompts.tsv"), "w") as f:
            f.write("single\ta red circle\nsingle\ta blue square\ntwo\ta green star and a red ring\n")
        base = {"prompts": "prompts.tsv", "judges": ["shapes-judge"], "options": {"steps": 2, "particles": 2}, "budgets": [2, 4], "seeds": [7],
                "batch": 2, "methods": [{"method": "fk", "options": {"lambda": 4}}, {"method": "dts"}]}
        path = write(folder, "bench.json", base)

        refuses([write(folder, "wrong.json", dict(base, bugdets=[3]))], "wrong.json: unknown key \"bugdets\"", folder)
        refuses([write(folder, "wrong.json", dict(base, judges=["shapes-juge"]))], "shapes-judge", folder)
        refuses([write(folder, "wrong.json", dict(base, budgets=[1]))], "method fk: --nfe 1 is not enough", folder)
        refuses([write(folder, "wrong.json", {k: v for k, v in base.items() if k != "prompts"})], "\"prompts\" is missing", folder)
        refuses([path, "--only", "fq"], "did you mean \"fk\"", folder)
        refuses([path, "--budgets", "2,x"], "--budgets", folder)
        r = kac("bench", path, code=2)
        check("-o DIR" in r.stderr, "no --output")

        plan = json.loads(kac("bench", path, "--plan", "--json").stdout)
        check(plan["cells"] == 12 and plan["nfe"] == 36 and plan["seconds"] > 0, f"plan {plan}")

        one = os.path.join(folder, "one")
        r = json.loads(kac("bench", path, "-o", one, "--time-limit", "0.001", "--json").stdout)
        check(r["done"] == 0 and r["stopped"], f"--time-limit: {r}")
        r = json.loads(kac("bench", path, "-o", one, "--budgets", "4", "--only", "fk", "--limit", "1", "--json").stdout)
        check(r["done"] == 1 and r["cells"] == 1, f"--only --limit --budgets: {r}")
        r = json.loads(kac("bench", path, "-o", one, "--trees", "--json").stdout)
        check(r["done"] == r["cells"] == 12 and r["failed"] == 0 and os.path.exists(r["page"]), f"all: {r}")
        cells, broken = results(one)
        check(len(cells) == 12 and broken == 0 and all(len(v) == 1 for v in cells.values()), "every cell once")
        for key, (c,) in cells.items():
            check(c["nfe"] <= key[1] and c["n"] >= 1 and c["seconds"] >= c["host_seconds"] >= 0 and c["flops"] > 0 and
                  c["reward"] >= c["mean_reward"] - 1e-12 and 0 <= c["judges"]["shapes-judge"] <= 1, f"{key}: {c}")
            check(os.path.exists(os.path.join(one, c["picture"])), f"{key}: picture")
        tree = cells["dts", 4, 0, 7][0]
        check(json.load(open(os.path.join(one, tree["tree"])))["n_nodes"] > 1, "tree")
        check(len(json.load(open(os.path.join(one, cells["fk", 4, 1, 7][0]["family"])))["events"][-1]["eves"]) == 2, "family")

        text = json.load(open(os.path.join(one, "bench.json")))["prompts"]
        check([p["category"] for p in text] == ["single", "two", "single"], "categories in turn")
        for method, more in [("fk", ["--lambda", "4"]), ("dts", ["--particles", "2"])]:  # a cell is what kac generate makes
            alone = os.path.join(folder, "alone-" + method)
            kac("generate", text[1]["text"], "--steer", method, "--steps", "2", "--nfe", "4", "--seed", "7", *more, "-o", alone)
            best = [i["file"] for i in json.load(open(os.path.join(alone, "run.json")))["images"] if i["rank"] == 0][0]
            check(pixels(os.path.join(alone, best)) == pixels(os.path.join(one, cells[method, 4, 1, 7][0]["picture"])), f"{method}: as generate")

        size = os.path.getsize(os.path.join(one, "results.jsonl"))
        r = json.loads(kac("bench", path, "-o", one, "--json").stdout)
        check(r["done"] == 12 and os.path.getsize(os.path.join(one, "results.jsonl")) == size, "a finished bench adds nothing")
        with open(os.path.join(one, "results.jsonl"), "r+b") as f:  # the last line cut
            f.truncate(size - 40)
        kac("bench", path, "-o", one)
        again, broken = results(one)
        check(broken == 1 and set(again) == set(cells), "a cut line is done again")
        check(all(again[k][-1]["reward"] == cells[k][0]["reward"] for k in cells), "… to the same reward")
        other = write(folder, "other.json", dict(base, options={"steps": 3, "particles": 2}))
        r = kac("bench", other, "-o", one, code=2)
        check("other options labelled \"fk\"" in r.stderr, f"another description: {r.stderr}")

        two = os.path.join(folder, "two")
        killed(path, two)
        kac("bench", path, "-o", two, "--keep", "none")
        shared, _ = results(two)
        check(set(shared) == set(cells), "killed and shared: every cell")
        check(all(len(v) == 1 and v[0]["reward"] == cells[k][0]["reward"] for k, v in shared.items()), "… once, with the same rewards")
    finally:
        shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
