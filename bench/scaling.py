#!/usr/bin/env python3
"""What steering costs besides the network: against particles, tree size, rollouts at once and method.

    taskset -c 1 python3 bench/scaling.py --kac build/kac --scratch /dev/shm            # about ten minutes on one core
    python3 bench/scaling.py --kac build/kac --only particles,host                      # some parts

particles  fk on the shipped model with 1 ... 256 particles: seconds for each, peak bytes beside what the plan says
trees      dts to 100,000 nodes on an exact mixture and to thousands on the shipped model: seconds and bytes for each node
host       every method at two budgets: what is left of the run when denoiser, decoder, rewards, gradients, loading and the writing of
           files are taken off; once as a share of the longer run, once of what the budgets differ by, without what a run costs once
rollouts   dts with 1, 4, 16 and 64 rollouts at once: seconds for each evaluation

Every number is the smallest of --repeats fresh processes. Writes bench/results/DATE-scaling.json and prints tables; needs Python alone.
"""
import argparse
import datetime
import json
import pathlib
import platform
import sys
import tempfile

from compare_diffusers import process

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPT = "a red circle left of a blue square"
MIXTURE = {"_class_name": "GaussianMixture", "weights": [0.5, 0.5], "means": [[-1, 0], [1, 0.5]],
           "covariances": [[[0.25, 0], [0, 0.25]]] * 2,
           "schedule": {"alphas_cumprod": [0.98, 0.9, 0.7, 0.4, 0.15, 0.03, 0.003]}, "kernel": "exact"}
QUADRATIC = {"A": [[0, 0], [0, 0]], "b": [1, -1]}
METHODS = ["none", "best-of-n", "is", "fk", "svdd", "code", "dsearch", "rbf", "dts", "dts-star", "noise-random", "noise-zero-order",
           "dps", "tds", "das"]
OUTSIDE = ("load", "text", "write")
NETWORKS = ("denoiser", "decoder", "reward", "denoiser_grad", "reward_grad")


def generate(o, *options):
    """run.json of a fresh run, and the folder's trees' sizes."""
    with tempfile.TemporaryDirectory(dir=o.scratch) as name:
        folder = pathlib.Path(name) / "run"
        command = [*o.kac.split(), "generate", *options, "--threads", o.threads, "--no-previews", "-o", folder]
        _, peak, _ = process(command)
        run = json.loads((folder / "run.json").read_text())
        run["peak_bytes"] = peak
        run["nodes"] = sum(json.loads(t.read_text())["n_nodes"] for t in folder.glob("trees/*.json"))
        return run


def least(o, *options):
    """The run that was fastest beside loading."""
    runs = [generate(o, *options) for _ in range(o.repeats)]
    return min(runs, key=lambda r: working(r))


def working(run):
    s = run["seconds"]
    return s["total"] - sum(s.get(k, 0) for k in OUTSIDE)


def host(run):
    return working(run) - sum(run["seconds"].get(k, 0) for k in NETWORKS)


def table(title, names, rows):
    print(f"\n**{title}**\n\n| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(str(v) for v in row) + " |")
    sys.stdout.flush()


def particles(o):
    out = []
    for n in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        run = least(o, PROMPT, "--steer", "fk", "--steps", 10, "--particles", n)
        out.append({"particles": n, "seconds": working(run), "ms_per_particle": 1000 * working(run) / n, "plan_bytes": run["plan_bytes"],
                    "peak_bytes": run["peak_bytes"], "host_seconds": host(run)})
    for a, b in zip(out, out[1:]):
        b["bytes_per_particle"] = (b["peak_bytes"] - a["peak_bytes"]) / (b["particles"] - a["particles"])
    table("Particles: fk, shipped model", ("particles", "seconds", "ms each", "plan MB", "peak MB", "peak KB for each more"),
          [(r["particles"], f"{r['seconds']:.2f}", f"{r['ms_per_particle']:.0f}", f"{r['plan_bytes'] / 1e6:.1f}", f"{r['peak_bytes'] / 1e6:.1f}",
            f"{r['bytes_per_particle'] / 1e3:.1f}" if "bytes_per_particle" in r else "") for r in out])
    return out


def trees(o):
    out = []
    with tempfile.TemporaryDirectory() as name:
        model, reward = pathlib.Path(name) / "mixture.json", pathlib.Path(name) / "reward.json"
        model.write_text(json.dumps(MIXTURE))
        reward.write_text(json.dumps(QUADRATIC))
        mixture = ["--model", model, "--reward", f"quadratic={reward}", "--lambda", "1"]
        shipped = [PROMPT, "--steps", o.steps, "--branch-steps", ",".join(str(i) for i in range(o.steps))]
        for kind, options, budgets in (("mixture", mixture, (1e3, 1e4, 1.2e5)), ("shipped", shipped, (500, 2000))):
            for method in ("dts", "dts-star"):
                for budget in budgets:
                    run = least(o, "--steer", method, "--nfe", int(budget), "--particles", 16, *options)
                    out.append({"model": kind, "method": method, "nfe": run["counts"].get("nfe", int(budget)), "nodes": run["nodes"],
                                "seconds": working(run), "host_seconds": host(run), "peak_bytes": run.get("peak_bytes"),
                                "plan_bytes": run.get("plan_bytes")})
    before = {}
    for r in out:
        first = before.setdefault((r["model"], r["method"]), r)
        if first is not r and r["peak_bytes"] and r["nodes"] > first["nodes"]:
            r["bytes_per_node"] = (r["peak_bytes"] - first["peak_bytes"]) / (r["nodes"] - first["nodes"])
    table("Trees", ("model", "method", "NFE", "nodes", "seconds", "µs for each NFE", "of it host", "bytes for each more node"),
          [(r["model"], r["method"], r["nfe"], r["nodes"], f"{r['seconds']:.2f}", f"{1e6 * r['seconds'] / r['nfe']:.1f}",
            f"{1e6 * r['host_seconds'] / r['nfe']:.1f}", f"{r['bytes_per_node']:.0f}" if "bytes_per_node" in r else "") for r in out])
    return out


def host_part(o):
    out = []
    for method in o.methods:
        guided = method in ("dps", "tds", "das")
        budgets = (100, 400) if guided else (200, 1000)
        try:
            short, long = (least(o, PROMPT, "--steer", method, "--steps", o.steps, "--nfe", b, *(["--rollouts", "16", "--particles", "16"]
                                 if method.startswith("dts") else [])) for b in budgets)
        except RuntimeError as e:
            print(f"{method}: {e}", file=sys.stderr)
            continue
        more, host_more = working(long) - working(short), host(long) - host(short)
        s = long["seconds"]
        out.append({"method": method, "nfe": budgets[1], "seconds": s, "host_seconds": host(long), "share": host(long) / s["total"],
                    "share_of_more": host_more / more, "once_seconds": host(short) - host_more * budgets[0] / (budgets[1] - budgets[0]),
                    "counts": long["counts"]})
    table("Host side of a run, shipped model", ("method", "NFE", "seconds", "denoiser", "decoder", "reward", "gradients", "load", "write",
                                                "host", "share", "share of more", "once, ms"),
          [(r["method"], r["nfe"], f"{r['seconds']['total']:.2f}", f"{r['seconds']['denoiser']:.2f}", f"{r['seconds']['decoder']:.2f}",
            f"{r['seconds']['reward']:.2f}", f"{r['seconds'].get('denoiser_grad', 0) + r['seconds'].get('reward_grad', 0):.2f}",
            f"{r['seconds']['load']:.2f}", f"{r['seconds']['write']:.2f}", f"{r['host_seconds']:.3f}", f"{100 * r['share']:.1f} %",
            f"{100 * r['share_of_more']:.1f} %", f"{1000 * r['once_seconds']:.0f}") for r in out])
    return out


def rollouts(o):
    out = []
    for n in (1, 4, 16, 64):
        run = least(o, PROMPT, "--steer", "dts", "--steps", o.steps, "--nfe", 1000, "--rollouts", n, "--particles", 64)
        out.append({"rollouts": n, "nfe": run["counts"]["nfe"], "denoiser_calls": run["counts"]["denoiser_calls"], "seconds": working(run),
                    "ms_per_nfe": 1000 * working(run) / run["counts"]["nfe"]})
    table("Rollouts at once: dts, shipped model", ("rollouts", "NFE", "network calls", "seconds", "ms for each NFE", "times as fast as 1"),
          [(r["rollouts"], r["nfe"], r["denoiser_calls"], f"{r['seconds']:.2f}", f"{r['ms_per_nfe']:.2f}",
            f"{out[0]['ms_per_nfe'] / r['ms_per_nfe']:.2f}") for r in out])
    return out


PARTS = {"particles": particles, "trees": trees, "host": host_part, "rollouts": rollouts}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--kac", default=str(ROOT / "build" / "kac"))
    ap.add_argument("--only", default=",".join(PARTS))
    ap.add_argument("--methods", default=",".join(METHODS))
    ap.add_argument("--steps", type=int, default=25)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--repeats", type=int, default=2)
    ap.add_argument("--scratch", help="where run folders live shortly (a folder in memory leaves the disk out)")
    ap.add_argument("--out", type=pathlib.Path, help="default: bench/results/DATE-scaling.json; parts there stay unless run again")
    o = ap.parse_args()
    o.methods = o.methods.split(",")
    date = datetime.date.today().isoformat()
    out = o.out or ROOT / "bench" / "results" / f"{date}-scaling.json"
    result = json.loads(out.read_text()) if out.exists() else {}
    result.update(date=date, machine=platform.processor(), threads=o.threads, repeats=o.repeats, steps=o.steps)
    for name in o.only.split(","):
        result[name] = PARTS[name](o)
        out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
