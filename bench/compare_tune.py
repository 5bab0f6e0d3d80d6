#!/usr/bin/env python3
"""A tuning step of kac against PyTorch + diffusers + PEFT: the same model, LoRA, first states, prompt, reward and threads, alternating.

    nice -n -5 python bench/compare_tune.py --bench build/bench/bench.tune                 the shipped model, a few minutes
    python bench/compare_tune.py --bench build/bench/bench.tune --batch 2 --steps 50 --rows 1

One step of AlignProp: DDIM with guidance, the last rows with a gradient, LoRA of a given rank on attention, reward clip=weights/shapes-clip
through the VAE's decoder. PyTorch samples the other rows under no_grad and checkpoints every kept row (torch.utils.checkpoint, as AlignProp's
code does), so that neither side's memory grows with the number of rows; --plain leaves checkpointing out there. Both sides' time includes
sampling, scoring and the way back; loading and AdamW (microseconds here) are not counted.

Rounds alternate in processes of their own (peak memory is the process's, import of torch included; `own` is what came on top of the state
after loading). The row "reward" is decoder, preprocessing, CLIP and their backward alone. `difference` compares all gradients of all factors.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")
ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPES, JUDGE = ROOT / "weights" / "shapes-64", ROOT / "weights" / "shapes-clip"
PROMPT = "a red circle left of a blue square"  # as in tune_bench.c
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


# ---- PyTorch's side, in a process of its own ----

class Torch:
    def __init__(self, o, folder):
        import torch
        from diffusers import DDIMScheduler, StableDiffusionPipeline
        from peft import LoraConfig
        from safetensors.torch import load_file
        from transformers import AutoTokenizer, CLIPModel
        torch.set_num_threads(o.threads)
        self.torch, self.o, self.folder = torch, o, pathlib.Path(folder)
        pipe = StableDiffusionPipeline.from_pretrained(SHAPES, torch_dtype=torch.float32, safety_checker=None)
        self.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        self.scheduler.set_timesteps(o.steps)
        self.unet, self.vae = pipe.unet, pipe.vae
        for m in (self.unet, self.vae, pipe.text_encoder):
            m.requires_grad_(False).eval()
        self.unet.add_adapter(LoraConfig(r=o.rank, lora_alpha=o.rank, target_modules=TARGETS))
        values = load_file(self.folder / "lora.safetensors")
        self.factors = {}
        for name, p in self.unet.named_parameters():
            if "lora_" in name:
                key = "unet." + name.replace(".default", "")
                p.data = values[key].float()
                p.requires_grad_(True)
                self.factors[key] = p
        self.clip = CLIPModel.from_pretrained(JUDGE, dtype=torch.float32).requires_grad_(False).eval()
        tokenizer = AutoTokenizer.from_pretrained(JUDGE)
        self.start = load_file(self.folder / "start.safetensors")["x"].permute(0, 3, 1, 2).contiguous()
        with torch.no_grad():
            rows = []
            for text in ("", PROMPT):
                ids = pipe.tokenizer(text, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True,
                                     return_tensors="pt").input_ids
                rows.append(pipe.text_encoder(ids)[0])
            self.tokens = torch.cat([r.expand(o.batch, -1, -1) for r in rows])
            ids = tokenizer(PROMPT, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
            text = self.clip.get_text_features(**ids)
            text = getattr(text, "pooler_output", text)
            self.text = text / text.norm(dim=-1, keepdim=True)
        config = json.loads((JUDGE / "preprocessor_config.json").read_text())
        self.mean = torch.tensor(config["image_mean"]).view(1, 3, 1, 1)
        self.std = torch.tensor(config["image_std"]).view(1, 3, 1, 1)
        self.size = self.clip.config.vision_config.image_size

    def guided(self, x, t):
        both = self.unet(self.torch.cat([x, x]), t, self.tokens).sample
        u, c = both.chunk(2)
        return u + self.o.cfg * (c - u)

    def reward(self, x0):
        images = self.vae.decode(x0 / self.vae.config.scaling_factor).sample
        images = (images / 2 + 0.5).clamp(0, 1)
        if images.shape[-1] != self.size:
            images = self.torch.nn.functional.interpolate(images, self.size, mode="bicubic", antialias=True)
        features = self.clip.get_image_features(pixel_values=(images - self.mean) / self.std)
        features = getattr(features, "pooler_output", features)
        return (features / features.norm(dim=-1, keepdim=True) * self.text).sum(-1)

    def step(self):
        """Milliseconds of a step and of the reward's part of it, mean reward."""
        from torch.utils.checkpoint import checkpoint
        torch, o = self.torch, self.o
        for p in self.factors.values():
            p.grad = None
        before = time.perf_counter()
        x, times = self.start, self.scheduler.timesteps
        with torch.no_grad():
            for t in times[:o.steps - o.rows]:
                x = self.scheduler.step(self.guided(x, t), t, x, eta=0).prev_sample
        for t in times[o.steps - o.rows:]:
            out = self.guided(x, t) if o.plain else checkpoint(self.guided, x, t, use_reentrant=False)
            x = self.scheduler.step(out, t, x, eta=0).prev_sample
        leaf = x.detach().requires_grad_(True)
        start = time.perf_counter()
        reward = self.reward(leaf)
        (-reward.mean()).backward()
        scored = time.perf_counter()
        x.backward(leaf.grad)
        return 1000 * (time.perf_counter() - before), 1000 * (scored - start), float(reward.mean().detach())

    def layouts(self):
        """The faster memory format stays; returns its name."""
        torch, best = self.torch, {}
        for name, layout in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
            for m in (self.unet, self.vae):
                m.to(memory_format=layout)
            self.step()
            best[name] = self.step()[0]
        name = min(best, key=best.get)
        for m in (self.unet, self.vae):
            m.to(memory_format=torch.channels_last if name == "channels_last" else torch.contiguous_format)
        return name


def torch_side(o):
    side = Torch(o, o.torch_side)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    setting = side.layouts() if o.setting == "" else o.setting
    if o.setting != "":
        for m in (side.unet, side.vae):
            m.to(memory_format=side.torch.channels_last if setting == "channels_last" else side.torch.contiguous_format)
    times = [side.step() for _ in range(o.repeats)]
    from safetensors.torch import save_file
    save_file({k: p.grad.contiguous() for k, p in side.factors.items()}, side.folder / "torch.safetensors")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"step_ms": [t[0] for t in times], "reward_ms": [t[1] for t in times], "reward": times[-1][2], "setting": setting,
                      "peak": peak, "own": peak - loaded}))


# ---- both ----

def child(command):
    """(JSON that it printed, peak bytes); a small process in between, since a child's peak counts what its parent had."""
    from compare_diffusers import process
    _, peak, out = process(command)
    return json.loads(out), peak


def difference(folder):
    from safetensors.torch import load_file
    ours, theirs = load_file(folder / "grads.safetensors"), load_file(folder / "torch.safetensors")
    d = sum(float((ours[k] - theirs[k]).norm() ** 2) for k in theirs) ** 0.5
    return d / sum(float(theirs[k].norm() ** 2) for k in theirs) ** 0.5


def compare(o, folder):
    sizes = [o.batch, o.steps, o.rows, o.cfg, o.rank, 0, o.threads, o.repeats + 1]
    ours, theirs, setting = [], [], ""
    for _ in range(o.rounds):
        ours.append(child([o.bench, SHAPES, f"clip={JUDGE}", folder, *sizes]))
        again = [sys.executable, __file__, "--torch-side", folder, "--setting", setting, *(["--plain"] if o.plain else [])]
        for name in ("batch", "steps", "rows", "cfg", "rank", "threads"):
            again += [f"--{name}", getattr(o, name)]
        theirs.append(child([*again, "--repeats", o.repeats + 1]))
        setting = theirs[-1][0]["setting"]
    rows = []
    for name, key, target in (("alignprop step", "step_ms", 2.0), ("reward and decoder backward", "reward_ms", 1.5)):
        a = [t for r, _ in ours for t in r[key][1:]]  # the first pass warms up
        b = [t for r, _ in theirs for t in r[key][1:]]
        rows.append({"row": name, "target": target, "kac_ms": a, "torch_ms": b, "ratio_min": min(b) / min(a),
                     "ratio_median": statistics.median(b) / statistics.median(a)})
    rows.append({"row": "peak memory", "target": 2.0, "kac_bytes": max(p for _, p in ours), "torch_bytes": max(p for _, p in theirs),
                 "torch_own_bytes": max(r["own"] for r, _ in theirs)})
    rows[-1]["ratio"] = rows[-1]["torch_bytes"] / rows[-1]["kac_bytes"]
    return {"rows": rows, "setting": setting, "difference": difference(folder), "kac": ours[-1][0], "reward": theirs[-1][0]["reward"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", help="the program bench.tune")
    for name, kind, default in (("batch", int, 4), ("steps", int, 25), ("rows", int, 5), ("cfg", float, 5.0), ("rank", int, 4),
                                ("threads", int, 2), ("repeats", int, 3), ("rounds", int, 3)):
        parser.add_argument("--" + name, type=kind, default=default)
    parser.add_argument("--plain", action="store_true", help="no checkpointing in PyTorch")
    parser.add_argument("--out", type=pathlib.Path, help="results as JSON (default: bench/results/)")
    parser.add_argument("--torch-side", help=argparse.SUPPRESS)
    parser.add_argument("--setting", default="", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.torch_side:
        return torch_side(o)
    if not o.bench:
        parser.error("--bench PROGRAM is needed")
    with tempfile.TemporaryDirectory(prefix="kac-tune-") as folder:
        result = compare(o, pathlib.Path(folder))
    for r in result["rows"]:
        if "kac_ms" in r:
            print(f"{r['row']:28} kac {min(r['kac_ms']):8.1f} ms, torch {min(r['torch_ms']):8.1f} ms: {r['ratio_min']:.2f} (minima), "
                  f"{r['ratio_median']:.2f} (medians); target {r['target']}")
        else:
            print(f"{r['row']:28} kac {r['kac_bytes'] / 1e6:8.1f} MB, torch {r['torch_bytes'] / 1e6:8.1f} MB: {r['ratio']:.2f}; "
                  f"of torch's, {r['torch_own_bytes'] / 1e6:.1f} MB came after loading")
    print(f"torch: {result['setting']}; gradients differ by {result['difference']:.1e}, rewards {result['kac']['reward']:.5f} and "
          f"{result['reward']:.5f}")
    date = datetime.date.today().isoformat()
    out = o.out or ROOT / "bench" / "results" / f"{date}-tune.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"date": date, "machine": platform.processor(), "options": {k: v for k, v in vars(o).items() if k in (
        "batch", "steps", "rows", "cfg", "rank", "threads", "repeats", "rounds", "plain")}, **result}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
