#!/usr/bin/env python3
"""Makes schedulers.json and schedulers.f32 from recorded runs of the diffusers schedulers.

The runs (folder given as argument) are those of diffusers' own tests and of a grid over its options, diffusers 0.42.1 on a CPU
with torch 2.15; the tests and the library are Apache-2.0, Copyright The HuggingFace Team. Everything in these runs but dynamic
thresholding works element by element, so only every 7th element of the 768 is kept, which loses nothing.
"""
import json
import math
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

CLASSES = {"DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
           "DPMSolverMultistepScheduler"}


def main(source, out):
    cases = json.load(open(source / "cases.json"))["cases"]
    reference = json.load(open(source / "reference_runs.json"))["cases"]
    runs = [(c["id"], c, c["tensors"]) for c in cases]
    runs += [("ref." + k, c, "tensors/ref." + k + ".safetensors") for k, c in reference.items()]
    blob, known, kept = [], {}, []

    def add(a):
        a = np.ascontiguousarray(a, dtype="<f4")
        key = a.tobytes()
        if key not in known:
            known[key] = sum(len(b) for b in blob) // 4
            blob.append(key)
        return [known[key], a.size]

    for name, c, path in runs:
        if c["scheduler"] not in CLASSES:
            continue
        t = load_file(source / path)
        whole = bool(c["config"].get("thresholding"))
        pick = np.arange(0, 768, 1 if whole else 7 if c.get("n_steps") != 1000 else 48)
        flat = {k: v.reshape(-1, 768)[:, pick] for k, v in t.items() if v.ndim >= 4}
        events = c["events"]
        setting = next((e for e in events if e["call"] == "set_timesteps"), None)
        steps = [e for e in events if e["call"] == "step"]
        table = setting["timesteps"] if setting else list(range(999, -1, -1))
        config = {"_class_name": c["scheduler"], **c["config"]}
        if config.get("lambda_min_clipped") in ("-inf", "-Infinity"):
            config["lambda_min_clipped"] = -math.inf
        row = {"id": name, "config": config, "steps": len(table), "begin": len(table) - len(steps),
               "eta": steps[0].get("extra", {}).get("eta"), "init_noise_sigma": c["init_noise_sigma"],
               "timesteps": table[len(table) - len(steps):], "sigmas": (setting or {}).get("sigmas"),
               "n": len(pick), "samples": 4 if whole else 1,
               "start": add(flat["sample_init"]), "final": add(flat["sample_final"])}
        if "Euler" in c["scheduler"]:  # some tests go on with the scaled sample instead of the state itself
            scaled = next(e for e in events if e["call"] == "scale_model_input")
            row["scaled_state"] = scaled["out_sum_abs"] == steps[0]["in_sum_abs"]
        if "noise" in flat:
            row["noise"] = add(flat["noise"])
        if "trajectory" in flat and flat["trajectory"].shape[0] == len(steps):
            row["trajectory"] = add(flat["trajectory"])
        kept.append(row)
    (out / "schedulers.f32").write_bytes(b"".join(blob))
    with open(out / "schedulers.json", "w") as f:
        f.write('{"cases": [\n' + ",\n".join(json.dumps(r) for r in kept) + "\n]}\n")
    print(len(kept), "cases,", sum(len(b) for b in blob), "bytes")


main(Path(sys.argv[1]), Path(__file__).parent)
