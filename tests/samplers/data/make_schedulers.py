#!/usr/bin/env python3
"""Makes schedulers.json and schedulers.f32 from recorded runs of the diffusers schedulers.

The runs (folder given as argument) are those of diffusers' own tests and of a grid over its options, diffusers 0.42.1 on a CPU
with torch 2.15; the tests and the library are Apache-2.0, Copyright The HuggingFace Team. Everything in these runs but dynamic
thresholding works element by element, so only every 48th element of the 768 is kept, which loses nothing.
"""
import json
import math
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

KEPT = 48  # of the 768 elements every so many
# The reference's own float32 error where large terms cancel: run in float64 it is this far from its recorded samples.
OWN_ERROR = {"pndm.full_loop_with_no_set_alpha_to_one": 2.6e-5, "pndm.full_loop_with_set_alpha_to_one": 1.9e-5,
             "lcm.full_loop_onestep": 1.3e-5}
DROPPED = {"_class_name", "trained_betas", "disable_corrector", "solver_p", "variance_type"}


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
        t = load_file(source / path)
        whole = bool(c["config"].get("thresholding"))
        width = t["sample_init"].size
        pick = np.arange(0, width, 1 if whole else KEPT if width == 768 else 6)
        flat = {k: v.reshape(-1, width)[:, pick] for k, v in t.items() if k not in ("timesteps", "sigmas")}
        events = c["events"]
        settings = [e for e in events if e["call"] == "set_timesteps"]
        setting = settings[-1] if settings else None
        steps = [e for e in events if e["call"].startswith("step")]
        table = setting["timesteps"] if setting else list(range(999, -1, -1))
        begin, n_rows = len(table) - len(steps), len(table)
        n_steps = setting["args"]["num_inference_steps"] if setting else n_rows
        if "Heun" in c["scheduler"] or "KDPM2" in c["scheduler"]:  # two network calls a step
            assert begin % 2 == 0
            begin //= 2
        config = {"_class_name": c["scheduler"],
                  **{k: v for k, v in c["config"].items() if v is not None and (k not in DROPPED or v and k == "variance_type")}}
        if config.get("lambda_min_clipped") in ("-inf", "-Infinity"):
            config["lambda_min_clipped"] = -math.inf
        row = {"id": name, "config": config, "steps": n_steps, "begin": begin,
               "eta": steps[0].get("extra", {}).get("eta"), "init_noise_sigma": c["init_noise_sigma"],
               "mu": (setting or {"args": {}})["args"].get("mu", 0),
               "timesteps": add(table[n_rows - len(steps):]), "n": len(pick), "samples": 4 if whole else 1,
               "start": add(flat["sample_init"]), "final": add(flat["sample_final"])}
        if (setting or {}).get("sigmas") is not None:
            row["sigmas"] = add(setting["sigmas"])
        scaled = [e for e in events if e["call"] == "scale_model_input"]
        if scaled:  # some tests go on with the scaled sample instead of the state itself
            row["scaled_state"] = scaled[0]["out_sum_abs"] == steps[0]["in_sum_abs"] and config["_class_name"][:4] in SIGMA
        if "noise" in flat:
            row["noise"] = add(flat["noise"])
        if "trajectory" in flat and flat["trajectory"].shape[0] == len(steps):
            row["trajectory"] = add(flat["trajectory"])
        if name in OWN_ERROR:
            row["own_error"] = OWN_ERROR[name]
        kept.append(row)
    (out / "schedulers.f32").write_bytes(b"".join(blob))
    with open(out / "schedulers.json", "w") as f:
        f.write('{"cases": [\n' + ",\n".join(json.dumps(r) for r in kept) + "\n]}\n")
    print(len(kept), "cases,", sum(len(b) for b in blob), "bytes")


SIGMA = ("Eule", "LMSD", "Heun", "KDPM")
main(Path(sys.argv[1]), Path(__file__).parent)
