#!/usr/bin/env python3
"""LoRA files that kac writes, read by diffusers. By hand:

    python tools/check_lora.py BUILD/kac

Each golden file converted by `kac convert` to every key format must give the same outputs as the file it was made from (1e-5). What `kac
tune` writes, for several sets of layers and in both formats, must give the same final latents of a guided DDIM run through diffusers as
through kac's own network (1e-3). Prints the relative L2 distance of every pair; ends with 1 when one is above. Needs torch, diffusers, peft,
transformers.
"""
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import golden_lora

SHAPES = pathlib.Path(__file__).resolve().parents[1] / "weights/shapes-64"
FILES = pathlib.Path(__file__).resolve().parents[1] / "tests/golden/lora/files"


def outputs(folder, name, xl):
    """What a UNet and the text encoders compute with a file, loaded by diffusers' pipeline."""
    torch.manual_seed(0)
    config = {"cross_attention_dim": 24, "sample_size": 8, **(golden_lora.UNET_XL if xl else golden_lora.UNET)}
    unet, one = UNet2DConditionModel(**config), CLIPTextModel(CLIPTextConfig(**golden_lora.CLIP))
    two = CLIPTextModelWithProjection(CLIPTextConfig(**golden_lora.CLIP_2))
    x, text = torch.randn(1, 4, 8, 8).double(), torch.randn(1, 5, 24).double()
    pipe = golden_lora.pipe_of(unet, one, two) if xl else golden_lora.pipe_of(unet, one)
    pipe.load_lora_weights(folder, weight_name=name)
    ids = torch.arange(12)[None] + 3
    with torch.no_grad():
        out = [unet.double()(x, 501, text).sample, one.double()(input_ids=ids).last_hidden_state]
        if xl:
            out.append(two.double()(input_ids=ids).last_hidden_state)
    return torch.cat([t.flatten() for t in out])


# ---- tuned files ----

PROMPT, STEPS, SCALE = "a red circle left of a blue square", 8, 3.0
SETS = {"attention": "to_q,to_k,to_v,to_out.0", "some": "attn2.to_k,to_v", "feed": "to_q,ff.net.0.proj,ff.net.2,proj_in,proj_out",
        "convs": "conv1,conv_shortcut,downsamplers.0.conv,time_emb_proj,conv_out"}


def sample(predict, start):
    """Guided DDIM from the same noise; predict(x twice, timestep) is the network."""
    from diffusers import DDIMScheduler
    scheduler = DDIMScheduler.from_pretrained(SHAPES / "scheduler")
    scheduler.set_timesteps(STEPS)
    x = start
    for t in scheduler.timesteps:
        u, c = predict(torch.cat([x, x]), t).chunk(2)
        x = scheduler.step(u + SCALE * (c - u), t, x, eta=0).prev_sample
    return x


def own_network(kac, lora, tokens, folder):
    """The network as `kac run unet` computes it."""
    def predict(x, t):
        save_file({"sample": x, "timestep": t.float().reshape(1), "encoder_hidden_states": tokens}, f"{folder}/in.safetensors")
        subprocess.run([kac, "run", "unet", "--model", SHAPES / "unet", "--in", f"{folder}/in.safetensors", "--out",
                        f"{folder}/out.safetensors", *(["--lora", lora] if lora else [])], check=True, stdout=subprocess.DEVNULL)
        return load_file(f"{folder}/out.safetensors")["sample"]
    return predict


def tuned(kac, folder):
    """The worst distance of all sets and formats."""
    pipe = StableDiffusionPipeline.from_pretrained(SHAPES, torch_dtype=torch.float32, safety_checker=None)
    start, worst = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1)), 0.0
    with torch.no_grad():
        ids = pipe.tokenizer(["", PROMPT], padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt").input_ids
        tokens = pipe.text_encoder(ids)[0].contiguous()
        base = sample(own_network(kac, None, tokens, folder), start)
        for name, targets in SETS.items():
            for style in ("kohya", "peft"):
                run = f"{folder}/{name}_{style}"
                subprocess.run([kac, "tune", "-o", run, "--prompt", PROMPT, "--rounds", "2", "--steps", "4", "--batch", "2", "--lr", "0.05",
                                "--rank", "3", "--alpha", "5", "--targets", targets, "--lora-format", style, "--reward", "brightness=0.9"],
                               check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                ours = sample(own_network(kac, f"{run}/tuned.safetensors", tokens, folder), start)
                pipe.load_lora_weights(run, weight_name="tuned.safetensors")
                theirs = sample(lambda x, t: pipe.unet(x, t, tokens).sample, start)
                pipe.unload_lora_weights()
                distance, change = (float((ours - x).norm() / x.norm()) for x in (theirs, base))
                worst = max(worst, distance if change > 0.01 else math.inf)  # a LoRA that changes nothing proves nothing
                print(f"tuned {name:10} {style:10} {distance:.1e}, base {change:.2f}", flush=True)
    return worst


def main():
    kac, worst = str(pathlib.Path(sys.argv[1]).resolve()), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pipeline", "diffusers", "processor", "kohya", "kohya_xl"):
            xl = name == "kohya_xl"
            want = outputs(FILES, f"{name}.safetensors", xl)
            for style in ("kohya", "peft", "diffusers"):
                out = f"{name}_{style}.safetensors"
                subprocess.run([kac, "convert", FILES / f"{name}.safetensors", f"{folder}/{out}", "--lora-format", style,
                                "--dtype", "f32"], check=True, stdout=subprocess.DEVNULL)
                got = outputs(folder, out, xl)
                distance = float((got - want).norm() / want.norm())
                worst = max(worst, distance)
                print(f"{name:10} -> {style:10} {distance:.1e}")
        worst_tuned = tuned(kac, folder)
    return 1 if worst > 1e-5 or worst_tuned > 1e-3 else 0


if __name__ == "__main__":
    sys.exit(main())
