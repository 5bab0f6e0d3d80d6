#!/usr/bin/env python3
"""Sampling digits of a class from an unconditional denoiser: methods against budgets, and how far each is from real digits.

    python bench/mnist.py --kac build/kac --data DIR --lenet FILE --budgets 1e4,2.5e4,1e5      goes on where it stopped
    python bench/mnist.py --table                                                          only the table, from the results

The experiment of Diffusion Tree Sampling (Jain et al. 2025) on MNIST, smaller. bench/mnist/ has the denoiser and the classifier
(tools/train_mnist.py makes them) and config.json: tasks, methods, options. A cell is a fresh `kac generate` with K = budget / steps
particles, or a tree with that many evaluations; its weighted pictures are drawn from again, `draws` times. Importance sampling
(`is`) needs no runs of its own: its samples come from a pool of plain samples that all tasks share, weighed by each task's reward.
The pool's first 10,000, which no cell uses, stand for the law that is sampled from. Trees hand over `draws` draws with equal weights.

Each finished cell is one line of bench/results/mnist/cells.jsonl:
  fd, fd_low    squared Fréchet distance to the test pictures of the class: between means and covariances of an independent network's
                features (LeNet, 84 numbers before its last layer) and of its first layer (6 channels on a 4 x 4 grid)
  target, target_low   the same, to the law that is to be sampled: the pool's first part, weighed
  reward        mean of the reward over the draws: log p(class | picture); wins: share that LeNet sees in the class
  diversity     mean distance, 1 - cosine, of two draws' features; ess: effective size of the weights, distinct: of the draws
"""
import argparse
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
HERE = ROOT / "bench" / "mnist"
RESULTS = ROOT / "bench" / "results" / "mnist"
REFERENCE = 10000
sys.path.insert(0, str(ROOT / "tools"))


# ---- networks ----

class Features:
    """The independent network's view of pictures [n, 16, 16] in bytes: (84 features, 96 low ones, digit)."""

    def __init__(self, path):
        from safetensors.torch import load_file
        self.w = load_file(path)

    def of(self, pictures):
        import torch
        import torch.nn.functional as F
        w, out = self.w, [[], [], []]

        def conv(x, name):
            return F.relu(F.conv2d(x, w[f"convnet.{name}.weight"], w[f"convnet.{name}.bias"]))
        with torch.inference_mode():
            for some in torch.from_numpy(pictures).split(1000):
                x = F.interpolate(some.float().div(255).unsqueeze(1), (32, 32), mode="bilinear", align_corners=False)
                first = F.max_pool2d(conv(x, "c1"), 2)
                x = conv(F.max_pool2d(conv(first, "c3"), 2), "c5").flatten(1)
                x = F.relu(F.linear(x, w["fc.f6.weight"], w["fc.f6.bias"]))
                out[0].append(x)
                out[1].append(F.adaptive_avg_pool2d(first, 4).flatten(1))
                out[2].append(F.linear(x, w["fc.f7.weight"], w["fc.f7.bias"]).argmax(1))
        return tuple(torch.cat(o).double().numpy() for o in out)


def log_probabilities(folder, pictures):
    """Of the reward's own classifier [n, 10], for samples of the pool."""
    import torch
    import train_mnist
    net = train_mnist.load_classifier(str(folder))
    with torch.inference_mode():
        x = torch.from_numpy(pictures).float().div(255).unsqueeze(1)
        return torch.cat([net(b).log_softmax(1) for b in x.split(1000)]).double().numpy()


# ---- statistics ----

def moments(f, w):
    w = w / w.sum()
    mean = w @ f
    return mean, (f - mean).T @ ((f - mean) * w[:, None])


def root(a):
    values, vectors = np.linalg.eigh(a)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def frechet(a, b):
    """Squared, of (mean, covariance) pairs."""
    half = root(a[1])
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(half @ b[1] @ half), 0)).sum()
    return float(((a[0] - b[0]) ** 2).sum() + np.trace(a[1]) + np.trace(b[1]) - 2 * cross)


def measure(features, counts, rewards, labels, real, target):
    """What a line says of pictures that were drawn `counts` times."""
    high, low, digit = features
    n = counts.sum()
    unit = high / np.maximum(np.linalg.norm(high, axis=1, keepdims=True), 1e-12)
    total = counts @ unit
    own = (counts * (unit ** 2).sum(1)).sum()
    out = {"fd": frechet(moments(high, counts), real[0]), "fd_low": frechet(moments(low, counts), real[1])}
    if target is not None:
        out.update(target=frechet(moments(high, counts), target[0]), target_low=frechet(moments(low, counts), target[1]))
    out.update(reward=float(counts @ rewards / n), wins=float(counts @ np.isin(digit, labels) / n),
               diversity=float(1 - (total @ total - own) / (n * (n - 1))), distinct=int((counts > 0).sum()))
    return out


def of_copies(pictures):
    """Of draws with replacement from a weighed list: how many are distinct, and an unbiased guess of 1 / sum p^2 from their copies."""
    n = len(pictures)
    copies = np.unique(pictures.reshape(n, -1), axis=0, return_counts=True)[1]
    pairs = (copies * (copies - 1.0)).sum() / (n * (n - 1.0))
    return len(copies), float(1 / pairs) if pairs > 0 else None


def draws(weights, n, seed):
    return np.random.default_rng(seed).multinomial(n, weights / weights.sum()).astype(float)


# ---- runs ----

def run_kac(o, folder, options):
    command = [*o.kac.split(), "generate", "-m", HERE / "unet-16", "--steps", o.config["steps"], "--sampling-method", "ddim", "--eta", "1",
               "--threads", 1, "--no-previews", *options, "-o", folder]
    before = time.perf_counter()
    subprocess.run([str(w) for w in command], check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "run.json").read_text()), time.perf_counter() - before


def read_pictures(folder, run):
    from PIL import Image
    return np.stack([np.asarray(Image.open(folder / im["file"]).convert("L")) for im in run["images"]])


def pool(o):
    """Plain samples [n, 16, 16], kept in --work in parts of 2,500: REFERENCE of them, and behind them those that `is` has."""
    parts = []
    o.work.mkdir(parents=True, exist_ok=True)
    for i in range(math.ceil((REFERENCE + o.pool) / 2500)):
        path = o.work / f"pool-{i}.npy"
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=o.scratch) as name:
                folder = pathlib.Path(name) / "run"
                run, seconds = run_kac(o, folder, ["--steer", "none", "--particles", 2500, "--seed", 1000 + i,
                                                   "--reward", f"classifier={HERE}/classifier:zero"])
                np.save(o.work / "part.npy", read_pictures(folder, run))
                (o.work / "part.npy").rename(path)
                print(f"pool {i}: {seconds:.0f} s", flush=True)
        parts.append(np.load(path))
    return np.concatenate(parts)


def cell_of_run(o, task, method, budget, seed):
    """(pictures, weights, rewards, facts) of a fresh run."""
    config, n = o.config, int(budget // o.config["steps"])
    options = [*config["methods"][method], "--seed", seed]
    if method in config["anytime"]:
        options += ["--nfe", int(budget), "--particles", config["draws"]]
    else:
        options += ["--particles", n]
    options += ["--reward", f"classifier={HERE}/classifier:{'+'.join(config['tasks'][task])}"]
    with tempfile.TemporaryDirectory(dir=o.scratch) as name:
        folder = pathlib.Path(name) / "run"
        run, seconds = run_kac(o, folder, options)
        pictures = read_pictures(folder, run)
        images = run["images"]
        w = np.array([im["weight"] for im in images], float)
        facts = {"results": len(images), "counts": run["counts"], "seconds": round(seconds, 2), "peak_bytes": run.get("peak_bytes")}
        if run.get("log_z"):
            facts["log_z"] = run["log_z"][0]
        return pictures, w, np.array([im["reward"] for im in images], float), facts


def append(line):
    RESULTS.mkdir(parents=True, exist_ok=True)
    with open(RESULTS / "cells.jsonl", "a") as f:
        f.write(json.dumps(line) + "\n")
        f.flush()
        os.fsync(f.fileno())


def cells():
    path = RESULTS / "cells.jsonl"
    return [json.loads(s) for s in path.read_text().splitlines()] if path.exists() else []


class References:
    """What cells are compared with, for each task."""

    def __init__(self, o, features):
        import mnist_data
        import train_mnist
        self.o, self.features, self.names = o, features, train_mnist.DIGITS
        self.real = {}
        for part in ("train", "t10k"):
            x, y = mnist_data.load(o.data, part)
            self.real[part] = ((x[:, 0] * 255).round().byte().numpy(), y.numpy())
        self.real_features = {part: features.of(x) for part, (x, _) in self.real.items()}
        self.pool = pool(o)
        self.pool_features = features.of(self.pool)
        self.pool_log_p = log_probabilities(HERE / "classifier", self.pool)

    def task(self, name):
        labels = [self.names.index(d) for d in self.o.config["tasks"][name]]
        high, low, _ = self.real_features["t10k"]
        mine = np.isin(self.real["t10k"][1], labels)
        one = np.ones(mine.sum())
        r = self.pool_log_p[:, labels].max(1)
        w = np.exp(r[:REFERENCE])
        h, l, _ = (f[:REFERENCE] for f in self.pool_features)
        return {"labels": labels, "rewards": r, "real": (moments(high[mine], one), moments(low[mine], one)),
                "target": (moments(h, w), moments(l, w))}


def calibration(o, refs):
    """Rows that need no steering: other real digits, plain samples, the law that is to be sampled."""
    done = {(c["task"], c["method"]) for c in cells()}
    for task in o.tasks:
        t = refs.task(task)
        mine = np.isin(refs.real["train"][1], t["labels"])
        base, r = [f[:REFERENCE] for f in refs.pool_features], t["rewards"][:REFERENCE]
        rows = {"real": ([f[mine] for f in refs.real_features["train"]], np.ones(mine.sum()),
                         log_probabilities(HERE / "classifier", refs.real["train"][0][mine])[:, t["labels"]].max(1)),
                "none": (base, np.ones(REFERENCE), r), "target": (base, np.exp(r), r)}
        for name, (f, w, rewards) in rows.items():
            if (task, name) not in done:
                counts = draws(w, o.config["draws"], 1) if name == "target" else w
                line = measure(f, counts, rewards, t["labels"], t["real"], t["target"])
                append({"task": task, "method": name, "budget": None, "seed": 0, **line, "ess": float(w.sum() ** 2 / (w ** 2).sum())})


def run_cells(o):
    features = Features(o.lenet)
    refs = References(o, features)
    calibration(o, refs)
    done = {(c["task"], c["method"], c["budget"], c["seed"]) for c in cells()}
    for budget in o.budgets:
        for seed in o.seeds:
            for task in o.tasks:
                t = refs.task(task)
                for method in o.methods:
                    if (task, method, budget, seed) in done:
                        continue
                    n = int(budget // o.config["steps"])
                    if o.config["methods"][method] == "pool":
                        at = slice(REFERENCE + seed * n, REFERENCE + (seed + 1) * n)
                        if at.stop > len(refs.pool):
                            continue
                        pictures, r = refs.pool[at], t["rewards"][at]
                        w, facts = np.exp(r), {"results": n, "log_z": float(np.log(np.exp(r).mean()))}
                    else:
                        pictures, w, r, facts = cell_of_run(o, task, method, budget, seed)
                    drawn = method in o.config["anytime"]
                    counts = np.ones(len(w)) if drawn else draws(w, o.config["draws"], seed)
                    line = measure(features.of(pictures), counts, r, t["labels"], t["real"], t["target"])
                    if drawn:
                        line["distinct"], ess = of_copies(pictures)
                    else:
                        ess = float(w.sum() ** 2 / (w ** 2).sum())
                    append({"task": task, "method": method, "budget": budget, "seed": seed, **line, "ess": ess, **facts})
                    print(f"{budget:g} {task} {method}: fd {line['fd']:.3f} target {line['target']:.3f} reward {line['reward']:.3f}, "
                          f"{facts.get('seconds', 0)} s", flush=True)


# ---- tables ----

SINGLE = [str(d) for d in range(10)]


def mean_of(lines, key, tasks, method, budget):
    """Mean over tasks of the mean over seeds, or None where a task is missing."""
    per = []
    for task in tasks:
        x = [c[key] for c in lines if c["task"] == task and c["method"] == method and c["budget"] == budget and c.get(key) is not None]
        if not x:
            return None
        per.append(sum(x) / len(x))
    return sum(per) / len(per) if per else None


def speed_up(lines, tasks, tree, baselines, budgets, key):
    """Largest budget over the one at which the tree reaches the best baseline's value there; log-interpolated. (name, value, factor)"""
    at_end = {m: mean_of(lines, key, tasks, m, budgets[-1]) for m in baselines}
    at_end = {m: v for m, v in at_end.items() if v is not None}
    curve = [(b, mean_of(lines, key, tasks, tree, b)) for b in budgets]
    curve = [(math.log(b), math.log(v)) for b, v in curve if v is not None]
    if not at_end or not curve:
        return None
    best = min(at_end, key=at_end.get)
    want = math.log(at_end[best])
    for i, (b, v) in enumerate(curve):
        if v <= want:
            if i > 0:
                b0, v0 = curve[i - 1]
                b = b0 + (b - b0) * (v0 - want) / (v0 - v)
            return best, at_end[best], budgets[-1] / math.exp(b), i == 0
    return best, at_end[best], None, False


def table(o):
    lines = cells()
    methods = [m for m in o.config["methods"] if any(c["method"] == m for c in lines)]
    budgets = sorted({c["budget"] for c in lines if c["budget"]})
    present = [t for t in o.config["tasks"] if any(c["task"] == t for c in lines)]
    groups = {"single digits (" + ", ".join(t for t in present if t in SINGLE) + ")": [t for t in present if t in SINGLE],
              "even and odd": [t for t in present if t not in SINGLE]}
    out = []
    for title, tasks in groups.items():
        if not tasks:
            continue
        for key, what in (("fd", "distance to real digits, LeNet features"), ("fd_low", "distance to real digits, first layer"),
                          ("target", "distance to the law itself, LeNet features"), ("reward", "E log p"), ("diversity", "diversity"),
                          ("ess", "effective sample size"), ("log_z", "log Z")):
            out += [f"\n**{title}: {what}**\n", "| method | " + " | ".join(f"{b:g}" for b in budgets) + " |", "|---" * (len(budgets) + 1) + "|"]
            for m in methods:
                row = [mean_of(lines, key, tasks, m, b) for b in budgets]
                if any(v is not None for v in row):
                    out.append(f"| {m} | " + " | ".join("" if v is None else f"{v:.3g}" for v in row) + " |")
            fixed = [f"{m} {mean_of(lines, key, tasks, m, None):.3g}" for m in ("real", "none", "target")
                     if mean_of(lines, key, tasks, m, None) is not None]
            out.append("\n" + "; ".join(fixed))
        trees = [m for m in methods if m in o.config["anytime"]]
        for key in ("fd", "target"):
            for m in trees:
                common = [b for b in budgets if mean_of(lines, key, tasks, m, b) is not None]
                for name, baselines in (("of the paper", ("dps", "fk", "tds", "das")), ("with is", ("dps", "fk", "tds", "das", "is"))):
                    s = speed_up(lines, tasks, m, baselines, common, key) if common else None
                    if s is None:
                        continue
                    factor = "not reached" if s[2] is None else f"{'at least ' if s[3] else ''}{s[2]:.1f} x"
                    out.append(f"\n{title}, {key}: {m} against the best baseline {name} at {common[-1]:g} ({s[0]}, {s[1]:.3g}): {factor}")
    print("\n".join(out))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--kac", default="build/kac", help="the program, words before it too: 'taskset -c 1 build/kac'")
    ap.add_argument("--data", help="folder of MNIST's four IDX files, gzip")
    ap.add_argument("--lenet", help="safetensors of the independent LeNet")
    ap.add_argument("--budgets", default="1e4", help="evaluations of the denoiser for each cell")
    ap.add_argument("--tasks", help="of config.json; default all")
    ap.add_argument("--methods", help="of config.json; default all")
    ap.add_argument("--seeds", default="0")
    ap.add_argument("--pool", type=int, default=2500, help="plain samples beyond the first 10,000: budgets of `is` up to this times steps")
    ap.add_argument("--work", type=pathlib.Path, default=pathlib.Path("mnist-work"), help="where the pool is kept")
    ap.add_argument("--scratch", help="where run folders live shortly (a folder in memory is fastest)")
    ap.add_argument("--table", action="store_true", help="print the table and run nothing")
    o = ap.parse_args()
    o.config = json.loads((HERE / "config.json").read_text())
    o.budgets = [float(b) for b in o.budgets.split(",")]
    o.seeds = [int(s) for s in o.seeds.split(",")]
    o.tasks = (o.tasks or ",".join(o.config["tasks"])).split(",")
    o.methods = (o.methods or ",".join(o.config["methods"])).split(",")
    if not o.table:
        run_cells(o)
    table(o)
    return 0


if __name__ == "__main__":
    sys.exit(main())
