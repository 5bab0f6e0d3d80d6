#!/usr/bin/env python3
"""LoRA files that kac writes, read by diffusers: each golden file converted by `kac convert` to every key format must give the same
outputs as the file it was made from. By hand:

    python tools/check_lora.py BUILD/kac

Prints the relative L2 distance of every pair; ends with 1 when one is above 1e-5. Needs torch, diffusers, peft, transformers.
"""
import pathlib
import subprocess
import sys
import tempfile

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import golden_lora

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


def main():
    kac, worst = sys.argv[1], 0.0
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
    return 1 if worst > 1e-5 else 0


if __name__ == "__main__":
    sys.exit(main())
