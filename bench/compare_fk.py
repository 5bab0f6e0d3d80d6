#!/usr/bin/env python3
"""FK steering as its authors' image code runs it, through diffusers, against `kac generate --steer fk`: the same weights and settings.

    taskset -c 1 python bench/compare_fk.py --kac build/kac --threads 1

The reference algorithm: one prompt at a time; DDIM with eta 1 and classifier-free guidance; at the scoring steps the predicted x0 is
decoded to pictures and CLIP judges them; potentials exp(lambda (r - r before)); multinomial resampling at every scoring step; after the last
step once more where the effective size is below k / 2. Here its three published slips are left out (weights lost between resamplings do
not arise without its adaptive mode). kac: --potential difference --ess-threshold 1 --resampling multinomial, the same scoring steps.

Rounds alternate. Three ways to count, none with the network of anything:
  warm   the loop alone: everything imported and loaded, its first run dropped, against kac's own total less loading (fresh processes;
         encoding of prompts, page and files are in it), once with all prompts in one process and once with one process a prompt
  cold   whole processes with all prompts, imports and loading included
kac runs all prompts of a process in one pass, which is part of what is compared; `one by one` is without that.
Both give k pictures a prompt; their rewards must agree, the weighted mean and the best of k: difference of the means in standard
errors, over prompts and rounds.
"""
import argparse
import datetime
import json
import math
import pathlib
import platform
import statistics
import sys
import tempfile
import time

from compare_diffusers import JUDGE, SHAPES, milliseconds, process

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Reference:
    def __init__(self, o, setting=None):
        import torch
        from diffusers import DDIMScheduler, StableDiffusionPipeline
        from diffusers.utils import logging
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel
        logging.disable_progress_bar()
        torch.set_num_threads(o.threads)
        self.o, self.torch = o, torch
        self.pipe = StableDiffusionPipeline.from_pretrained(SHAPES, torch_dtype=torch.float32, safety_checker=None)
        self.scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config)
        self.clip = CLIPModel.from_pretrained(JUDGE, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(JUDGE)
        self.processor = CLIPImageProcessor.from_pretrained(JUDGE)
        with torch.inference_mode():
            self.setting = setting or self.faster_layout()
        layout = torch.channels_last if self.setting == "channels_last" else torch.contiguous_format
        self.pipe.unet.to(memory_format=layout)
        self.pipe.vae.to(memory_format=layout)

    def faster_layout(self):
        torch, unet, times = self.torch, self.pipe.unet, {}
        x, text = torch.randn(2 * self.o.particles, 4, 16, 16), self.encode("a red circle")
        for name, layout in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
            unet.to(memory_format=layout)
            unet(x, 501, text)
            times[name] = min(milliseconds(lambda: unet(x, 501, text), 3))
        return min(times, key=times.get)

    def encode(self, prompt):
        ids = self.pipe.tokenizer(["", prompt], padding="max_length", max_length=self.pipe.tokenizer.model_max_length, truncation=True,
                                  return_tensors="pt").input_ids
        return self.pipe.text_encoder(ids)[0].repeat_interleave(self.o.particles, 0)

    def judge(self, x0, prompt):
        images = self.pipe.vae.decode(x0 / self.pipe.vae.config.scaling_factor).sample
        images = self.pipe.image_processor.postprocess(images, output_type="pil")
        pixels = self.processor(images=images, return_tensors="pt").pixel_values
        ids = self.tokenizer([prompt], padding="max_length", max_length=self.clip.config.text_config.max_position_embeddings,
                             truncation=True, return_tensors="pt").input_ids
        out = self.clip(input_ids=ids, pixel_values=pixels)
        return (out.image_embeds @ out.text_embeds.T)[:, 0].double(), images

    def run(self, prompt, seed):
        """Rewards and weights of the k pictures, before the last resampling."""
        torch, o, scheduler = self.torch, self.o, self.scheduler
        with torch.inference_mode():
            generator = torch.Generator().manual_seed(seed)
            text = self.encode(prompt)
            scheduler.set_timesteps(o.steps)
            x = torch.randn(o.particles, 4, 16, 16, generator=generator)
            last = torch.zeros(o.particles, dtype=torch.float64)
            for i, t in enumerate(scheduler.timesteps):
                free, guided = self.pipe.unet(torch.cat([x, x]), t, text).sample.chunk(2)
                step = scheduler.step(free + o.cfg * (guided - free), t, x, eta=1.0, generator=generator)
                x = step.prev_sample
                final = i == o.steps - 1
                if not final and (i == 0 or i % o.every != 0):
                    continue
                r, images = self.judge(x if final else step.pred_original_sample, prompt)
                w = torch.softmax(o.lam * (r - last), 0)
                last = r
                weighed = r.tolist(), w.tolist()
                if not final or 1 / float((w * w).sum()) < 0.5 * o.particles:
                    pick = torch.multinomial(w, o.particles, replacement=True, generator=generator)
                    x, last, images = x[pick], r[pick], [images[k] for k in pick.tolist()]
            return weighed


def kac_run(o, folder, prompts, seed):
    """(seconds of the whole process, seconds without loading, for each prompt (rewards, weights))"""
    options = []
    for prompt in prompts:
        options += ["--prompt", prompt]
    command = [*o.kac.split(), "generate", *options, "--model", SHAPES, "--reward", f"clip={JUDGE}", "--steer", "fk", "--particles", o.particles,
               "--steps", o.steps, "--eta", "1", "--cfg-scale", o.cfg, "--lambda", o.lam, "--potential", "difference",
               "--score-every", o.every, "--ess-threshold", "1", "--resampling", "multinomial", "--seed", seed,
               "--threads", o.threads, "--no-previews", "-o", folder]
    whole, _, _ = process(command)
    run = json.loads((folder / "run.json").read_text())
    per = [([], []) for _ in prompts]
    for im in run["images"]:
        per[im["group"]][0].append(im["reward"])
        per[im["group"]][1].append(im["weight"])
    return whole, run["seconds"]["total"] - run["seconds"]["load"], per


def child(o):
    """A whole Python process: imports, loading, all prompts."""
    reference = Reference(o, o.setting)
    print(json.dumps([reference.run(p, o.seed + i) for i, p in enumerate(o.prompts)]))
    return 0


def mean_and_error(x):
    return statistics.mean(x), statistics.stdev(x) / math.sqrt(len(x))


def compare(o, folder):
    reference = Reference(o)
    reference.run(o.prompts[0], 0)
    times = {k: [] for k in ("kac_warm", "kac_one_by_one", "kac_cold", "reference_warm", "reference_cold")}
    rewards = {"kac": [], "reference": [], "kac_best": [], "reference_best": []}
    again = [sys.executable, __file__, "--child", "--setting", reference.setting]
    for name in ("steps", "particles", "every", "cfg", "lam", "threads"):
        again += ["--" + name, getattr(o, name)]
    for prompt in o.prompts:
        again += ["--prompt", prompt]
    for k in range(o.rounds):
        whole, warm, per = kac_run(o, folder / f"all-{k}", o.prompts, 100 + k)
        times["kac_cold"].append(whole)
        times["kac_warm"].append(warm)
        before, theirs = time.perf_counter(), []
        for i, prompt in enumerate(o.prompts):
            theirs.append(reference.run(prompt, 1000 * k + i))
        times["reference_warm"].append(time.perf_counter() - before)
        times["kac_one_by_one"].append(sum(kac_run(o, folder / f"one-{k}-{i}", [p], 100 + k)[1] for i, p in enumerate(o.prompts)))
        times["reference_cold"].append(process([*again, "--seed", 1000 * k])[0])
        for name, pairs in (("kac", per), ("reference", theirs)):
            rewards[name] += [sum(a * b for a, b in zip(r, w)) for r, w in pairs]
            rewards[name + "_best"] += [max(r) for r, _ in pairs]
        print(f"round {k}: " + ", ".join(f"{name} {t[-1]:.2f} s" for name, t in times.items()), flush=True)
    medians = {name: statistics.median(t) for name, t in times.items()}
    result = {"medians": medians, "ratios": {
        "warm": medians["reference_warm"] / medians["kac_warm"], "warm, one by one": medians["reference_warm"] / medians["kac_one_by_one"],
        "cold": medians["reference_cold"] / medians["kac_cold"]}, "seconds": times, "layout": reference.setting, "rewards": {}}
    for name in ("", "_best"):
        gaps = [a - b for a, b in zip(rewards["kac" + name], rewards["reference" + name])]
        gap, error = mean_and_error(gaps)
        result["rewards"]["mean" if name == "" else "best"] = {"kac": statistics.mean(rewards["kac" + name]),
                                                               "reference": statistics.mean(rewards["reference" + name]),
                                                               "difference_in_errors": gap / error}
    return result


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--kac", default=str(ROOT / "build" / "kac"))
    for name, kind, default in (("steps", int, 25), ("particles", int, 8), ("every", int, 5), ("cfg", float, 3.0), ("lam", float, 10.0),
                                ("threads", int, 1), ("rounds", int, 5), ("n-prompts", int, 8)):
        ap.add_argument("--" + name, type=kind, default=default)
    ap.add_argument("--prompt", action="append", dest="prompts", help="default: the first of bench/prompts_shapes.tsv")
    ap.add_argument("--out", type=pathlib.Path, help="results as JSON (default: bench/results/)")
    ap.add_argument("--scratch", help="where run folders live shortly")
    for name in ("setting", "seed"):
        ap.add_argument("--" + name, help=argparse.SUPPRESS, type=int if name == "seed" else str)
    ap.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    o = ap.parse_args()
    if o.prompts is None:
        rows = [line.split("\t") for line in (ROOT / "bench" / "prompts_shapes.tsv").read_text().splitlines()]
        o.prompts = [r[1] for r in rows][:: max(1, len(rows) // o.n_prompts)][: o.n_prompts]
    if o.child:
        return child(o)
    with tempfile.TemporaryDirectory(prefix="kac-fk-", dir=o.scratch) as folder:
        result = compare(o, pathlib.Path(folder))
    for name, ratio in result["ratios"].items():
        print(f"{name:18} kac is {ratio:.2f} times as fast (medians of {o.rounds} rounds, {len(o.prompts)} prompts)")
    for name, r in result["rewards"].items():
        print(f"{name} reward: kac {r['kac']:.4f}, reference {r['reference']:.4f}, {r['difference_in_errors']:+.2f} standard errors apart")
    date = datetime.date.today().isoformat()
    out = o.out or ROOT / "bench" / "results" / f"{date}-fk.json"
    names = ("steps", "particles", "every", "cfg", "lam", "threads", "rounds", "prompts")
    out.write_text(json.dumps({"date": date, "machine": platform.processor(), "options": {k: getattr(o, k) for k in names}, **result},
                              indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
