#!/usr/bin/env python3
"""From latents through the decoder to a reward and its gradient back: kac against PyTorch (diffusers, transformers), alternating.

    cmake --build build --target bench.gradient
    python bench/compare_gradient.py --bench build/bench/bench.gradient [--batch 4] [--threads 2] [--rounds 5]

The shipped decoder and CLIP; PyTorch in contiguous and in channels_last, the faster one counts. No LoRA is in the graph: only the latents want a
gradient on both sides. Prints minima and medians of both, their ratio, the peak of each process and how far the gradients are apart.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from compare_diffusers import JUDGE, PROMPT, SHAPES, milliseconds, process


def reference(torch):
    """latents [n, 4, h, w] -> the cosines, with the decoder and CLIP of the shipped model."""
    import diffusers
    import transformers
    vae = diffusers.AutoencoderKL.from_pretrained(SHAPES / "vae").float().eval().requires_grad_(False)
    clip = transformers.CLIPModel.from_pretrained(JUDGE).float().eval().requires_grad_(False)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(JUDGE)
    how = json.loads((JUDGE / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(how[k]).view(1, 3, 1, 1) for k in ("image_mean", "image_std"))
    n = clip.config.text_config.max_position_embeddings
    with torch.no_grad():
        ids = tokenizer([PROMPT], padding="max_length", max_length=n, return_tensors="pt").input_ids
        text = torch.nn.functional.normalize(clip.text_projection(clip.text_model(ids).pooler_output), dim=-1)

    def score(latents):
        image = (vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
        pooled = clip.vision_model((image - mean) / std).pooler_output  # 64x64 already: nothing to resize
        return (torch.nn.functional.normalize(clip.visual_projection(pooled), dim=-1) * text).sum(-1)
    return score, (vae, clip)


def torch_round(torch, score, latents, n):
    out = {}

    def call():
        x = latents.clone().requires_grad_()
        value = score(x)
        out["d"], = torch.autograd.grad(value.sum(), x)
        out["value"] = value.detach()
    call()
    return milliseconds(call, n), out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bench", required=True)
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--repeats", type=int, default=5)
    o = p.parse_args()
    import torch
    from safetensors.torch import load_file, save_file
    torch.set_num_threads(o.threads)
    score, models = reference(torch)
    latents = torch.randn(o.batch, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    times = {"kac": [], "contiguous": [], "channels_last": []}
    with tempfile.TemporaryDirectory() as folder:
        given, made = pathlib.Path(folder) / "in.safetensors", pathlib.Path(folder) / "out.safetensors"
        save_file({"latents": latents.permute(0, 2, 3, 1).contiguous()}, given)
        for _ in range(o.rounds):
            _, peak, text = process([o.bench, SHAPES / "vae", f"clip={JUDGE}", o.threads, o.repeats + 1, given, made, PROMPT])
            times["kac"] += json.loads(text)["repeat_ms"][1:]
            for layout in ("contiguous", "channels_last"):
                for model in models:
                    model.to(memory_format=getattr(torch, layout + "_format" if layout == "contiguous" else layout))
                measured, want = torch_round(torch, score, latents, o.repeats)
                times[layout] += measured
        have = load_file(made)
    best = min(("contiguous", "channels_last"), key=lambda k: min(times[k]))
    for name in ("kac", best):
        print(f"{name:14} min {min(times[name]):8.2f} ms, median {statistics.median(times[name]):8.2f} ms")
    print(f"ratio          min {min(times[best]) / min(times['kac']):.2f}, median {statistics.median(times[best]) / statistics.median(times['kac']):.2f}")
    print(f"peak           kac {peak / 1e6:.0f} MB, PyTorch {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    d, x = have["d_latents"].permute(0, 3, 1, 2), want["d"]
    print(f"differences    gradient {float((d - x).norm() / x.norm()):.1e}, values {float((have['values'] - want['value']).abs().max()):.1e}")


if __name__ == "__main__":
    main()
