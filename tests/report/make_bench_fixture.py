#!/usr/bin/env python3
"""Writes a small bench folder as `kac bench` leaves it: usage make_bench_fixture.py FOLDER. Standard library only.

Four methods, four budgets, three prompts of two kinds (one hostile), two seeds; each cell of the first seed with a picture, the search with
trees, the particle method with families.
"""
import json
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from make_fixture import png  # noqa: E402

METHODS = [("none", "the model's own law"), ("best-of-n", "the mode"), ("fk", "the tilted law"), ("dts", "the tilted law")]
BUDGETS = [25, 50, 100, 200]
PROMPTS = [("a red circle above a blue square", "position"), ("<script>alert('x')</script> & \"quotes\"", "colors"), ("two green squares", "colors")]
JUDGE = "attributes=weights/a-judge"


def tree(rng, n_samples):
    nodes = [[-1, -1, n_samples, 0.0]]
    for _ in range(n_samples):
        at = 0
        for step in (0, 10, 20, 25):
            nodes.append([at, step, 1, rng.gauss(0, 1)])
            at = len(nodes) - 1
    return {"group": 0, "n_nodes": len(nodes), "parent": [v[0] for v in nodes], "i_step": [v[1] for v in nodes],
            "visits": [v[2] for v in nodes], "value": [v[3] for v in nodes], "chosen": [len(nodes) - 1]}


def family(rng, n):
    lines = []
    for step in range(0, 26, 5):
        resampled = step in (10, 15)
        lines.append({"event": "step", "i_step": step, "n_steps": 25, "group": 0, "resampled": resampled, "eves": list(range(n)),
                      "ancestors": sorted(rng.choices(range(n), k=n)) if resampled else list(range(n)),
                      "log_weights": [rng.gauss(0, 1) for _ in range(n)], "rewards": [rng.gauss(0, 1) for _ in range(n)], "ess": n / 2, "log_z": 0})
    return "".join(json.dumps(line) + "\n" for line in lines)


def cell(folder, rng, m, b, p, seed):
    budget, n = BUDGETS[b], max(1, BUDGETS[b] // 25)
    reward = 0.2 + 0.05 * m * b + rng.gauss(0, 0.02)
    line = {"method": METHODS[m][0], "budget": budget, "prompt": p, "seed": seed, "reward": reward, "mean_reward": reward - 0.1,
            "judges": {JUDGE: 0.5 + 0.02 * b + rng.gauss(0, 0.05)}, "mean_judges": {JUDGE: 0.5}, "n": n, "nfe": budget, "flops": 1e9 * budget,
            "seconds": 0.01 * budget, "host_seconds": 1e-4 * budget, "log_z": None, "ess": n / 2 if m > 1 else None, "diversity": 0.3,
            "counts": {"denoiser": budget, "decoder": n, "reward": n, "denoiser_grad": 0, "reward_grad": 0}}
    if seed > 0:
        return line
    name = "%d_%d_%d" % (m, b, p)
    line["picture"] = "pictures/%s.png" % name
    png(os.path.join(folder, line["picture"]), 24, (60 * m + 20, 110, 200 - 40 * b), 0.1, rng)
    if METHODS[m][0] == "dts":
        line["tree"] = "trees/%s.json" % name
        with open(os.path.join(folder, line["tree"]), "w") as f:
            json.dump(tree(rng, 3 * n), f)
    if METHODS[m][0] == "fk" and n > 1:
        line["family"] = "families/%s.json" % name
        with open(os.path.join(folder, line["family"]), "w") as f:
            f.write(family(rng, n))
    return line


def main():
    folder, rng = sys.argv[1], random.Random(4)
    for name in ("pictures", "trees", "families"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    bench = {"kac_bench": 1, "title": "Methods against compute", "methods": [{"label": a, "method": a, "target": t, "options": {"steps": 25}} for a, t in METHODS],
             "budgets": BUDGETS, "budget_unit": "nfe", "prompts": [{"text": t, "category": c, "id": str(i)} for i, (t, c) in enumerate(PROMPTS)],
             "seeds": [0, 1], "rewards": ["clip"], "judges": [JUDGE], "machine": {"cpu": "a processor", "threads": 2}}
    with open(os.path.join(folder, "bench.json"), "w") as f:
        json.dump(bench, f)
    with open(os.path.join(folder, "results.jsonl"), "w") as f:
        for m in range(len(METHODS)):
            for b in range(len(BUDGETS)):
                for p in range(len(PROMPTS)):
                    for seed in (0, 1):
                        f.write(json.dumps(cell(folder, rng, m, b, p, seed)) + "\n")


if __name__ == "__main__":
    main()
