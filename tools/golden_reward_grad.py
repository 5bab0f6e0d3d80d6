#!/usr/bin/env python3
"""Golden gradients of rewards by pixels, of preprocessing, and of CLIP's text tower by its weights: PyTorch in float64.

    python tools/golden_reward_grad.py --out tests/golden [--only mps]

Runs with the packages of golden_rewards.py. One file per case in tests/golden/reward_grad. Pictures are `golden_picture`s "a" of 47x38 and "b" of
31x53 in 0 ... 1, prompts those of PROMPTS; torchvision resizes them as tensors (bicubic, antialias), crops and normalises.
    value        [2]         of the two pictures
    d.a, d.b     [3, H, W]   its derivative by them
Preprocessing has `seed.a`, `seed.b` [3, h, w], with which derivatives are multiplied, in the place of `value`. Weights come from the case's own
golden files (score/image_reward, score/mps, clip/patch_14) or from weights/shapes-clip. `reference_f32_error` as in golden_grad.py.
"""
import argparse
import json
import pathlib
import sys
import tempfile

import torch
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import golden_cases
import golden_rewards
import make_golden
from golden_pipeline import picture

PROMPTS = ["a red circle above a blue square", "two large green stars"]
SIZES = {"a": (47, 38), "b": (31, 53)}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def images(dtype):
    return {k: torch.tensor(picture(k, w, h) / 255.0, dtype=torch.float32).permute(2, 0, 1).to(dtype) for k, (w, h) in SIZES.items()}


def prepare(x, edge, filter=InterpolationMode.BICUBIC, floor=False, mean=CLIP_MEAN, std=CLIP_STD):
    """floor: an odd row that is left over is cropped below, as transformers does; torchvision halves to even."""
    x = F.resize(x[None], edge, filter, antialias=True)
    x = F.crop(x, (x.shape[2] - edge) // 2, (x.shape[3] - edge) // 2, edge, edge) if floor else F.center_crop(x, edge)
    return F.normalize(x, mean, std)


def by_pixels(score, dtype):
    out, values = {}, []
    for (name, x), prompt in zip(images(dtype).items(), PROMPTS):
        x.requires_grad_()
        value = score(x, prompt).reshape(())
        values.append(value.detach())
        out["d." + name], = torch.autograd.grad(value, x)
    return {"value": torch.stack(values), **out}


def reward_model(case, dtype):
    return golden_rewards.formula_model(case)[0].to(dtype).eval()


# ---- rewards ----

def shapes_clip(dtype):
    from transformers import CLIPModel, CLIPTokenizer
    folder = ROOT / "weights/shapes-clip"
    return CLIPModel.from_pretrained(folder, attn_implementation="eager").to(dtype).eval(), CLIPTokenizer.from_pretrained(folder)


def image_embeds(model, x):
    how = json.loads((ROOT / "weights/shapes-clip/preprocessor_config.json").read_text())
    pixels = prepare(x, model.config.vision_config.image_size, floor=True, mean=how["image_mean"], std=how["image_std"])
    pooled = model.vision_model(pixels).pooler_output
    return torch.nn.functional.normalize(model.visual_projection(pooled), dim=-1)


def clip(dtype):
    model, tokenizer = shapes_clip(dtype)

    def score(x, prompt):
        n = model.config.text_config.max_position_embeddings
        ids = tokenizer([prompt], padding="max_length", max_length=n, return_tensors="pt").input_ids
        text = model.text_projection(model.text_model(ids).pooler_output)
        return image_embeds(model, x) @ torch.nn.functional.normalize(text, dim=-1).T
    return by_pixels(score, dtype)


def aesthetic(dtype):
    """With the head "layers.0" [24, width], "layers.2" [1, 24] by formula (scale 0.3), without biases."""
    model, _ = shapes_clip(dtype)
    width = model.config.projection_dim
    first = torch.tensor(make_golden.uniform("w1", 24 * width) * 0.3).float().reshape(24, width).to(dtype)
    last = torch.tensor(make_golden.uniform("w2", 24) * 0.3).float().to(dtype)
    return by_pixels(lambda x, prompt: last @ first @ image_embeds(model, x)[0], dtype)


def image_reward(dtype):
    from transformers import BertTokenizerFast
    model = reward_model(golden_rewards.whole_image_reward(), dtype)
    vocab = {token: i for i, token in enumerate((golden_rewards.text_data() / "wordpiece/vocab.txt").read_text().split("\n")[:-1])}
    tokenizer = BertTokenizerFast(vocab=vocab)

    class Keep:
        def output(self, name, value):
            setattr(self, name, value)

    def score(x, prompt):
        ids, keep = tokenizer(prompt, return_tensors="pt").input_ids, Keep()
        model(keep, prepare(x, golden_rewards.EDGE), ids, [ids.shape[1]])
        return keep.rewards
    return by_pixels(score, dtype)


def mps(dtype):
    from transformers import CLIPTokenizer
    model, tokenizer = reward_model(golden_rewards.whole_mps(), dtype), CLIPTokenizer.from_pretrained(golden_rewards.text_data() / "shapes")
    encode = lambda t: tokenizer([t], padding="max_length", truncation=True, max_length=32, return_tensors="pt").input_ids
    return by_pixels(lambda x, prompt: model.score(prepare(x, golden_rewards.EDGE, floor=True), encode(prompt), encode(golden_rewards.MPS_CONDITION)), dtype)


def jpeg_size(dtype):
    """The bits of all blocks, with the modules of tools/train_jpeg_size.py and the shipped weights."""
    from safetensors.torch import load_file
    import train_jpeg_size as tool
    size = tool.Size(tool.Half(), tool.Half(), 0.0).to(dtype)
    tensors = load_file(ROOT / "weights/jpeg-size/model.safetensors")
    for name in ("luma", "chroma"):
        getattr(size, name).load_state_dict({k[len(name) + 1:]: v for k, v in tensors.items() if k.startswith(name + ".")})
    for plane in "ybr":  # as stored: rounded to float32
        getattr(size, "dct_" + plane).copy_(tensors[f"dct.{plane}.weight"].reshape(64, 64, 3))
    size.shift.copy_(tensors["dct.y.bias"])

    def score(x, prompt):
        more = [-n % 16 for n in x.shape[1:]]
        return size(torch.nn.functional.pad(x[None], (0, more[1], 0, more[0]), mode="replicate")[0]) * 8
    return by_pixels(score, dtype)


# ---- preprocessing ----

def preprocess(filter):
    def run(dtype):
        out = {}
        for i, (name, x) in enumerate(images(dtype).items()):
            seed = torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(i))  # "a" shrinks a little, "b" grows
            x.requires_grad_()
            out["seed." + name] = seed
            out["d." + name], = torch.autograd.grad((prepare(x, 40, filter)[0] * seed.to(dtype)).sum(), x)
        return out
    return run


# ---- CLIP's text tower ----

def clip_text(dtype):
    """d sum(seed * text_projection(pooled)) by weights, of the case clip/patch_14 and its own ids."""
    case = {c["name"]: c for c in golden_cases.networks()}["clip/patch_14"]
    with tempfile.TemporaryDirectory() as folder:
        make_golden.write_folder(case, folder)
        model, store = make_golden.load_double(case, folder).to(dtype), make_golden.Store()
    golden_cases.FLOAT[0] = dtype
    with torch.no_grad():
        case["run"](model, store)
    golden_cases.FLOAT[0] = torch.float64
    ids = store.tensors["in.input_ids"]
    embeds = model.text_projection(model.text_model(ids).pooler_output)
    seed = torch.randn(embeds.shape, generator=torch.Generator().manual_seed(5))
    layer, tables = model.text_model.encoder.layers[0], model.text_model.embeddings
    weights = {"token_embedding": tables.token_embedding.weight, "position_embedding": tables.position_embedding.weight,
               "q": layer.self_attn.q_proj.weight, "k": layer.self_attn.k_proj.weight, "v": layer.self_attn.v_proj.weight,
               "fc1": layer.mlp.fc1.weight, "text_projection": model.text_projection.weight}
    grads = torch.autograd.grad((embeds * seed.to(dtype)).sum(), list(weights.values()))
    return {"seed": seed, **{"d." + k: g for k, g in zip(weights, grads)}}


CASES = {"clip": clip, "aesthetic": aesthetic, "image_reward": image_reward, "mps": mps, "jpeg_size": jpeg_size,
         "bicubic": preprocess(InterpolationMode.BICUBIC),
         "bilinear": preprocess(InterpolationMode.BILINEAR), "clip_text": clip_text}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--only", default="")
    o = p.parse_args()
    (o.out / "reward_grad").mkdir(parents=True, exist_ok=True)
    for name, run in CASES.items():
        if not name.startswith(o.only):
            continue
        exact, rounded = run(torch.float64), run(torch.float32)
        worst = max(float((rounded[k].double() - exact[k]).norm() / exact[k].norm()) for k in exact if k.startswith("d."))
        tensors = {k: v.detach().float().contiguous() for k, v in exact.items()} | {"reference_f32_error": torch.tensor([worst])}
        path = o.out / "reward_grad" / (name + ".safetensors")
        save_file(tensors, path)
        print(f"{name:14} {path.stat().st_size / 1000:7.1f} kB, float32 off by {worst:.1e}", *sorted(tensors))


if __name__ == "__main__":
    main()
