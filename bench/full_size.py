#!/usr/bin/env python3
"""Models of full size with random weights, run through kac and diffusers on the CPU.

    python bench/full_size.py --kac build/kac --family sd15 --work DIR                      f32, 256x256
    python bench/full_size.py --kac build/kac --family sdxl --work DIR --dtype bf16 --size 512

Builds a diffusers folder of the published configuration (Stable Diffusion 1.5, Stable Diffusion XL base) with random f16 weights in
DIR (2 and 7 GB, kept for the next time), then in turn: the bytes that `kac generate --plan` announces, a whole
`kac generate` with its peak memory, and one guided denoising step by kac and by diffusers. Nothing is downloaded. The
pictures are noise: what is shown is that such a model loads, fits and runs, and how fast.
"""
import argparse
import json
import math
import os
import pathlib
import struct
import sys
import tempfile
import time

import numpy as np

from compare_diffusers import ROOT, process

os.environ.setdefault("HF_HUB_OFFLINE", "1")
LIMIT = 24 << 30
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768,
          "hidden_act": "quick_gelu", "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
          "projection_dim": 1280, "hidden_act": "gelu", "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}
VAE = {"block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
       "up_block_types": ["UpDecoderBlock2D"] * 4, "layers_per_block": 2}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
            "prediction_type": "epsilon", "steps_offset": 1, "timestep_spacing": "leading"}
FAMILIES = {
    "sd15": {
        "pipeline": "StableDiffusionPipeline",
        "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        "vae": {**VAE, "sample_size": 512},
        "text": {"text_encoder": ("CLIPTextModel", CLIP_L)},
        "scheduler": ("PNDMScheduler", {**SCHEDULE, "skip_prk_steps": True, "set_alpha_to_one": False}),
    },
    "sdxl": {
        "pipeline": "StableDiffusionXLPipeline",
        "unet": {"sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20], "use_linear_projection": True,
                 "block_out_channels": [320, 640, 1280], "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time",
                 "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
                 "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                 "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]},
        "vae": {**VAE, "sample_size": 1024, "scaling_factor": 0.13025},
        "text": {"text_encoder": ("CLIPTextModel", CLIP_L), "text_encoder_2": ("CLIPTextModelWithProjection", CLIP_G)},
        "scheduler": ("EulerDiscreteScheduler", SCHEDULE),
    },
}


# ---- folders ----

def write_random(path, module, seed):
    """The state dict of a module on the meta device, as f16 safetensors: weights of variance 1 / fan-in, norms and biases neutral."""
    rng = np.random.default_rng(seed)
    pool = rng.standard_normal(1 << 24, dtype=np.float32)
    state = {name: tuple(t.shape) for name, t in module.state_dict().items() if "position_ids" not in name}
    header, at = {}, 0
    for name, shape in state.items():
        n = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_suffix(".part")
    with open(part, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in state.items():
            n = math.prod(shape)
            if len(shape) < 2:
                values = np.full(n, 0.0 if name.endswith("bias") else 1.0, np.float16)
            else:
                scale = 1 / math.sqrt(n / shape[0]) if "embedding" not in name else 0.02
                values = np.resize(np.roll(pool, -int(rng.integers(1 << 24)))[:max(1, min(n, 1 << 24))], n)
                values = (values * np.float32(scale)).astype(np.float16)
            file.write(values.tobytes())
    part.rename(path)


def build(folder, family):
    """The diffusers folder; an unfinished one is made again."""
    import diffusers
    import torch
    import transformers
    spec, done = FAMILIES[family], folder / "complete"
    if done.exists():
        return
    index = {"_class_name": spec["pipeline"], "_diffusers_version": diffusers.__version__, "scheduler": ["diffusers", spec["scheduler"][0]],
             "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"], "force_zeros_for_empty_prompt": True}
    with torch.device("meta"):
        modules = {"unet": diffusers.UNet2DConditionModel(**spec["unet"]), "vae": diffusers.AutoencoderKL(**spec["vae"])}
        for name, (kind, config) in spec["text"].items():
            modules[name] = getattr(transformers, kind)(transformers.CLIPTextConfig(**config))
            index[name] = ["transformers", kind]
            index[name.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
    for seed, (name, module) in enumerate(modules.items()):
        print(f"writing {family}/{name}", file=sys.stderr)
        (folder / name).mkdir(parents=True, exist_ok=True)
        text = name.startswith("text")
        config = {**module.config.to_dict(), "architectures": [type(module).__name__]} if text else {"_class_name": type(module).__name__, **module.config}
        (folder / name / "config.json").write_text(json.dumps(config, default=str))
        write_random(folder / name / ("model.safetensors" if text else "diffusion_pytorch_model.safetensors"), module, seed)
        if text:
            write_tokenizer(folder / name.replace("text_encoder", "tokenizer"), pad="<|endoftext|>" if name == "text_encoder" else "!")
    (folder / "scheduler").mkdir(exist_ok=True)
    kind, config = spec["scheduler"]
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps({"_class_name": kind, **config}))
    (folder / "model_index.json").write_text(json.dumps(index))
    done.touch()


def write_tokenizer(folder, pad):
    """CLIP's vocabulary from the shipped list of merges, in the files of a diffusers folder."""
    import gzip
    lines = gzip.open(next(ROOT.glob("weights/clip-tokenizer/bpe*.gz")), "rt", encoding="utf-8").read().split("\n")
    merges = lines[1:49152 - 256 - 2 + 1]
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    words = letters + [c + "</w>" for c in letters] + ["".join(m.split()) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
         "unk_token": "<|endoftext|>", "pad_token": pad}))


# ---- measuring ----

def inputs_of(family, size):
    """A guided step: two rows of one latent, as named by `kac run unet`."""
    rng = np.random.default_rng(7)
    unet = FAMILIES[family]["unet"]
    latent = rng.standard_normal((1, 4, size // 8, size // 8), dtype=np.float32)
    inputs = {"sample": np.concatenate([latent, latent]), "timestep": np.array(601.0, np.float32),
              "encoder_hidden_states": rng.standard_normal((2, 77, unet["cross_attention_dim"]), dtype=np.float32)}
    if unet.get("addition_embed_type"):
        inputs["text_embeds"] = rng.standard_normal((2, 1280), dtype=np.float32)
        inputs["time_ids"] = np.array([[size, size, 0, 0, size, size]] * 2, np.float32)
    return inputs


def diffusers_step(folder, inputs, dtype, repeats):
    """Milliseconds of each pass after a first one, and the last prediction."""
    import diffusers
    import torch
    kind = torch.float32 if dtype == "f32" else torch.bfloat16
    model = diffusers.UNet2DConditionModel.from_pretrained(folder, torch_dtype=kind, low_cpu_mem_usage=True).eval()
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    added = {name: tensors[name].to(kind) for name in ("text_embeds", "time_ids") if name in tensors}
    times, out = [], None
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            out = model(tensors["sample"].to(kind), tensors["timestep"], tensors["encoder_hidden_states"].to(kind),
                        added_cond_kwargs=added or None).sample
            times.append(1000 * (time.perf_counter() - start))
    return times[1:], out.float().numpy()


def child(options):
    from safetensors.numpy import load_file, save_file
    times, out = diffusers_step(options.work / options.family / "unet", load_file(options.child), options.dtype, options.repeats)
    save_file({"sample": np.ascontiguousarray(out)}, options.child + ".out")
    print(json.dumps(times))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kac", default="build/kac")
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="where the folders lie or are made")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--steps", type=int, default=2, help="of the whole run")
    parser.add_argument("--repeats", type=int, default=2, help="passes of the denoiser that are timed, after a first one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if options.child:
        return child(options)
    from safetensors.numpy import load_file, save_file
    folder = options.work / options.family
    build(folder, options.family)
    with tempfile.TemporaryDirectory() as temporary:
        at = pathlib.Path(temporary)
        common = ["--model", folder, "--dtype", options.dtype, "--threads", options.threads, "--json"]
        generate = [options.kac, "generate", "a red circle above a blue square", *common, "--width", options.size, "--height", options.size,
                    "--steps", options.steps, "--particles", "1", "--steer", "none", "--reward", "jpeg", "--cfg-scale", "5"]
        plan = json.loads(process([*generate, "--plan"])[2])["bytes"]["total"]
        seconds, peak, text = process([*generate, "-o", at / "run"])
        record = json.loads((at / "run/run.json").read_text())
        print(f"{options.family} {options.dtype} {options.size}x{options.size}, {options.threads} threads")
        print(f"  plan {plan / 2**30:.2f} GiB, peak {peak / 2**30:.2f} GiB ({100 * (peak / plan - 1):+.1f} %)"
              f"{'' if peak < LIMIT else ': ABOVE 24 GiB'}")
        print(f"  kac generate, {options.steps} steps: {seconds:.1f} s; {json.dumps(record['seconds'])}")
        inputs = inputs_of(options.family, options.size)
        save_file(inputs, at / "in")
        ours = json.loads(process([options.kac, "run", "unet", *common, "--in", at / "in", "--out", at / "ours",
                                   "--repeat", options.repeats + 1])[2])
        ours_ms = ours["repeat_ms"][1:]
        _, their_peak, text = process([sys.executable, __file__, "--child", at / "in", "--family", options.family, "--work", options.work,
                                       "--dtype", options.dtype, "--repeats", options.repeats, "--threads", options.threads])
        their_ms = json.loads(text.strip().splitlines()[-1])
        a, b = load_file(at / "ours")["sample"].astype(np.float64), load_file(at / "in.out")["sample"].astype(np.float64)
        print(f"  guided step: kac {min(ours_ms) / 1000:.2f} s, diffusers {min(their_ms) / 1000:.2f} s, ratio "
              f"{min(their_ms) / min(ours_ms):.2f}; peak of diffusers {their_peak / 2**30:.2f} GiB; difference "
              f"{np.linalg.norm(a - b) / np.linalg.norm(b):.1e}")


if __name__ == "__main__":
    main()
