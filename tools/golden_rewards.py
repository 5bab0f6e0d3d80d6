#!/usr/bin/env python3
"""Golden files of the reward networks, as make_golden.py's: open_clip's CLIP, ImageReward's BLIP, BERT, ViT classifiers, MPS.

    python tools/golden_rewards.py --out tests/golden [--only blip]

The reference implementations are the packages open_clip_torch 3.3, image-reward 1.5 (with timm 1.0, fairscale 0.4) and transformers 5.23. image-reward's
files med.py and vit.py are imported as they are, past its package, which wants a network and old names of transformers.
MPS has no package: its forward pass is written out below from the published code (Kwai-Kolors/MPS).
"""
import argparse
import importlib.util
import pathlib
import sys
import warnings
import zlib

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from make_golden import DTYPES, Store, dump, formula, rule, watch

warnings.filterwarnings("ignore")


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).float()


def ids_below(seed, vocab, *shape):
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(seed))


def image_reward_file(name):
    """ImageReward/models/BLIP/NAME.py."""
    import transformers.modeling_utils as new
    import transformers.pytorch_utils as old
    for symbol in ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer"):
        if not hasattr(new, symbol):
            setattr(new, symbol, getattr(old, symbol, None))
    package = pathlib.Path(importlib.util.find_spec("ImageReward").origin).parent
    spec = importlib.util.spec_from_file_location("blip_" + name, package / "models/BLIP" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- ImageReward ----

class ImageReward(torch.nn.Module):
    """ImageReward/ImageReward.py with sizes of our choice; the names of its state dict."""

    def __init__(self, image, patch, vision, text, head):
        super().__init__()
        med, vit = image_reward_file("med"), image_reward_file("vit")
        self.blip = torch.nn.Module()
        self.blip.visual_encoder = vit.VisionTransformer(img_size=image, patch_size=patch, embed_dim=vision["width"], depth=vision["layers"],
                                                         num_heads=vision["heads"])
        config = med.BertConfig(**text, encoder_width=vision["width"], add_cross_attention=True)
        config.is_decoder, config.chunk_size_feed_forward, config.add_cross_attention = False, 0, True
        config.output_attentions = config.output_hidden_states = False
        med.BertModel.init_weights = lambda self: None
        med.BertModel.invert_attention_mask = lambda self, mask: (1.0 - mask[:, None, None, :].double()) * -1e9
        med.BertModel.get_head_mask = lambda self, mask, layers: [None] * layers
        med.BertModel.dtype = torch.float64
        self.blip.text_encoder = med.BertModel(config=config, add_pooling_layer=False)
        self.mlp = torch.nn.Module()
        sizes = [text["hidden_size"], *head, 1]
        places = [0, 2, 4, 6, 7]
        layers = [torch.nn.Dropout(0.1) for _ in range(8)]
        for place, n_in, n_out in zip(places, sizes, sizes[1:]):
            layers[place] = torch.nn.Linear(n_in, n_out)
        self.mlp.layers = torch.nn.Sequential(*layers)

    def forward(self, store, pixels, ids, used):
        embeds = self.blip.visual_encoder(pixels)
        mask = (torch.arange(ids.shape[1])[None] < torch.tensor(used)[:, None]).long()
        out = self.blip.text_encoder(ids, attention_mask=mask, encoder_hidden_states=embeds,
                                     encoder_attention_mask=torch.ones(embeds.shape[:-1], dtype=torch.long), return_dict=True)
        store.output("features", out.last_hidden_state[:, 0, :])
        store.output("rewards", (self.mlp.layers(out.last_hidden_state[:, 0, :]) - 0.16717362830052426) / 1.0333394966054072)


def image_reward(name, about, image=32, patch=8, vision=None, text=None, head=(24, 12, 8, 6), dtype="F32", config=None):
    vision = {"width": 64, "layers": 2, "heads": 1, **(vision or {})}
    text = {"vocab_size": 120, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 96,
            "max_position_embeddings": 24, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
            "pad_token_id": 0, **(text or {})}

    def run(model, store):
        pixels, ids = noise(1, 2, 3, image, image), ids_below(2, text["vocab_size"], 2, 12)
        used = [12, 7]
        store.input("pixel_values", pixels)
        store.input("input_ids", ids)
        store.input("used", torch.tensor(used))
        model(store, pixels.double(), ids, used)
    return {"name": "image_reward/" + name, "about": about, "make": lambda: ImageReward(image, patch, vision, text, head), "run": run,
            "class": "ImageReward", "component": "reward", "dtype": dtype, "config": config or {},
            "skip": ("position_ids", "vision_proj")}


def image_rewards():
    return [
        image_reward("shapes", "everything told by shapes: heads of 64", vision={"width": 128, "heads": 2}),
        image_reward("config", "heads, activation and eps from config.json; text narrower than the picture's tokens",
                     vision={"width": 48, "heads": 3, "layers": 3}, patch=16, image=48,
                     text={"hidden_size": 40, "num_attention_heads": 5, "hidden_act": "gelu_new", "layer_norm_eps": 1e-6},
                     config={"vision_config": {"num_attention_heads": 3},
                             "text_config": {"num_attention_heads": 5, "hidden_act": "gelu_new", "layer_norm_eps": 1e-6}}),
        image_reward("half", "weights stored as float16", dtype="F16", text={"num_hidden_layers": 1}),
    ]


# ---- open_clip ----

def open_clip_case(name, about, embed=24, vision=None, text=None, dtype="F32", prefix="", act=torch.nn.GELU, quick=False):
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, **(vision or {})}
    text = {"context_length": 16, "vocab_size": 99, "width": 64, "heads": 1, "layers": 2, **(text or {})}

    def make():
        import open_clip
        return open_clip.CLIP(embed_dim=embed, vision_cfg=vision, text_cfg=text, quick_gelu=quick)

    def run(model, store):
        pixels = noise(1, 2, 3, vision["image_size"], vision["image_size"])
        ids = ids_below(2, text["vocab_size"] - 1, 3, text["context_length"])
        for row, end in enumerate((text["context_length"] - 1, 5, 2)):  # the end of the text is the largest id; zeros follow
            ids[row, end] = text["vocab_size"] - 1
            ids[row, end + 1:] = 0
        store.input("pixel_values", pixels)
        store.input("input_ids", ids)
        store.output("image_embeds", model.encode_image(pixels.double(), normalize=True))
        store.output("text_embeds", model.encode_text(ids, normalize=True))
        store.output("logit_scale", model.logit_scale.exp()[None])
    return {"name": "open_clip/" + name, "about": about, "make": make, "run": run, "class": "CLIP", "component": "clip", "dtype": dtype,
            "config": {}, "prefix": prefix, "act": "quick_gelu" if quick else "gelu"}


def open_clips():
    return [
        open_clip_case("gelu", "names as in a state dict, exact GELU, towers of different width",
                       vision={"width": 128, "patch_size": 16, "image_size": 48}),
        open_clip_case("quick", "quick_gelu, other mlp_ratio, one layer", quick=True, vision={"mlp_ratio": 2.5, "layers": 1}, embed=72),
        open_clip_case("head_80", "vision heads of 80 as in ViT-H, under module.", prefix="module.", dtype="F16",
                       vision={"width": 160, "head_width": 80, "patch_size": 14, "image_size": 42}, text={"width": 128, "heads": 2}),
    ]


# ---- writing ----

def run_case(case, out):
    torch.manual_seed(0)
    model = case["make"]()
    state = {n: t for n, t in model.state_dict().items() if not n.endswith(case.get("skip", ("attn_mask",)))}
    weights, crc = {}, 0
    prefix = case.get("prefix", "")
    for name in sorted(prefix + n for n in state):
        shape = list(state[name[len(prefix):]].shape)
        offset, scale = rule(name, shape)
        values = formula(name, shape, offset, scale)
        crc = zlib.crc32(values.numpy().tobytes(), crc)
        weights[name] = [offset, scale, shape]
        state[name[len(prefix):]] = values.to(DTYPES[case["dtype"]]).float()
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and all(n.endswith(case.get("skip", ("attn_mask",))) for n in missing.missing_keys), missing
    store = Store()
    model = model.double().eval()
    hooks = watch(model, store, "", case.get("wanted", lambda path: 192 if path.split(".")[-1].isdigit() and path.split(".")[-2] in
                                             ("blocks", "layer") else 0))
    with torch.no_grad():
        case["run"](model, store)
    for hook in hooks:
        hook.remove()
    head = {"about": case["about"], "component": case["component"], "class": case["class"], "config": case["config"], "weights": weights,
            "extra": {}, "weights_crc32": crc, "file": "model.safetensors", "dtype": case["dtype"]}
    if "act" in case:
        head["act"] = case["act"]
    dump(case["name"], head, store, out)


def cases():
    return image_rewards() + open_clips()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--only", default="", help="cases whose name starts with this")
    options = parser.parse_args()
    torch.set_num_threads(2)
    for case in cases():
        if case["name"].startswith(options.only):
            run_case(case, options.out)


if __name__ == "__main__":
    main()
