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
from make_golden import DTYPES, Distance, Store, dump, formula, rule, watch

warnings.filterwarnings("ignore")


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).float()


def float_of(model):
    return next(model.parameters()).dtype


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
        med.BertModel.invert_attention_mask = lambda self, mask: (1.0 - mask[:, None, None, :].to(self.dtype)) * -1e9
        med.BertModel.get_head_mask = lambda self, mask, layers: [None] * layers
        med.BertModel.dtype = property(lambda self: next(self.parameters()).dtype)
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


def image_reward(name, about, image=32, patch=8, vision=None, text=None, head=(24, 12, 8, 6), dtype="F32", config=None, used=(12, 12)):
    vision = {"width": 64, "layers": 2, "heads": 1, **(vision or {})}
    text = {"vocab_size": 120, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 96,
            "max_position_embeddings": 24, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
            "pad_token_id": 0, **(text or {})}

    def run(model, store):
        pixels, ids = noise(1, 2, 3, image, image), ids_below(2, text["vocab_size"], 2, 12)
        store.input("pixel_values", pixels)
        store.input("input_ids", ids)
        store.input("used", torch.tensor(used))
        model(store, pixels.to(float_of(model)), ids, used)
    return {"name": "image_reward/" + name, "about": about, "make": lambda: ImageReward(image, patch, vision, text, head), "run": run,
            "class": "ImageReward", "component": "reward", "dtype": dtype, "config": config or {},
            "skip": ("position_ids",), **({} if used[0] == used[1] else {"wanted": lambda path: 0})}


def image_rewards():
    return [
        image_reward("shapes", "everything told by shapes: heads of 64", vision={"width": 128, "heads": 2}),
        image_reward("config", "heads, activation and eps from config.json; text narrower than the picture's tokens",
                     vision={"width": 48, "heads": 3, "layers": 3}, patch=16, image=48,
                     text={"hidden_size": 40, "num_attention_heads": 5, "hidden_act": "gelu_new", "layer_norm_eps": 1e-6},
                     used=(12, 7), config={"vision_config": {"num_attention_heads": 3},
                             "text_config": {"num_attention_heads": 5, "hidden_act": "gelu_new", "layer_norm_eps": 1e-6}}),
        image_reward("half", "weights stored as float16", dtype="F16", text={"num_hidden_layers": 1}),
    ]


# ---- open_clip ----

def open_clip_case(name, about, embed=24, vision=None, text=None, dtype="F32", prefix="", quick=False, config=None):
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
        store.output("image_embeds", model.encode_image(pixels.to(float_of(model)), normalize=True))
        store.output("text_embeds", model.encode_text(ids, normalize=True))
        store.output("logit_scale", model.logit_scale.exp()[None])
    return {"name": "open_clip/" + name, "about": about, "make": make, "run": run, "class": "CLIP", "component": "clip", "dtype": dtype,
            "config": config or {}, "prefix": prefix, "act": "quick_gelu" if quick else "gelu"}


def open_clips():
    return [
        open_clip_case("gelu", "names as in a state dict, exact GELU, towers of different width",
                       vision={"width": 128, "patch_size": 16, "image_size": 48}),
        open_clip_case("quick", "quick_gelu, other mlp_ratio, one layer", quick=True, vision={"mlp_ratio": 2.5, "layers": 1}, embed=72),
        open_clip_case("heads", "head_width and heads from the config; under module.", prefix="module.", dtype="F16",
                       vision={"width": 120, "head_width": 40, "patch_size": 14, "image_size": 42}, text={"width": 96, "heads": 4},
                       config={"model_cfg": {"vision_cfg": {"head_width": 40}, "text_cfg": {"heads": 4}}}),
    ]


# ---- MPS: the formula of its published forward pass, under its state dict's names ----

class Gain(torch.nn.Module):
    """A layer norm with a weight only; its bias is a constant of the file."""

    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))

    def forward(self, x):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], self.weight)


def named(**modules):
    holder = torch.nn.Module()
    for name, module in modules.items():
        holder.add_module(name, module)
    return holder


def one_key_attention(q, k, v, heads):
    """q [B, N, heads d], k and v [B, S, d]."""
    b, n, _ = q.shape
    q = q.view(b, n, heads, -1)
    weights = torch.softmax(torch.einsum("bnhd,bsd->bhns", q, k) / q.shape[-1] ** 0.5, -1)
    return torch.einsum("bhns,bsd->bnhd", weights, v).reshape(b, n, -1)


def rotary(x, d):
    """x [B, N, heads d]."""
    b, n, _ = x.shape
    angle = torch.arange(n)[:, None] / 10000 ** (torch.arange(0, d, 2) / d)[None]
    angle = torch.cat([angle, angle], -1)[None, :, None].double()
    x = x.view(b, n, -1, d)
    turned = torch.cat([-x[..., d // 2:], x[..., :d // 2]], -1)
    return (x * angle.cos().to(x.dtype) + turned * angle.sin().to(x.dtype)).reshape(b, n, -1)


def swiglu(x):
    x, gate = x.chunk(2, -1)
    return torch.nn.functional.silu(gate) * x


class Mps(torch.nn.Module):
    def __init__(self, clip_config, width, layers, heads, d, mult):
        super().__init__()
        from transformers import CLIPConfig, CLIPModel
        linear = lambda n_in, n_out: torch.nn.Linear(n_in, n_out, bias=False)
        self.model, self.heads, self.d = CLIPModel(CLIPConfig(**clip_config)), heads, d
        self.cross_model = named(layers=torch.nn.ModuleList(torch.nn.ModuleList([
            named(fn=named(norm=Gain(width), to_q=linear(width, heads * d), to_kv=linear(width, 2 * d), to_out=linear(heads * d, width),
                           ff=torch.nn.Sequential(linear(width, 2 * mult * width), torch.nn.Identity(), linear(mult * width, width)))),
            named(fn=named(norm=Gain(width), fused_attn_ff_proj=linear(width, heads * d + 2 * d + 2 * mult * width),
                           attn_out=linear(heads * d, width),
                           ff_out=torch.nn.Sequential(torch.nn.Identity(), linear(mult * width, width))))]) for _ in range(layers)))

    def tokens(self, ids):
        out = self.model.text_model(ids)
        return self.model.text_projection(out.last_hidden_state), self.model.text_projection(out.pooler_output)

    def features(self, pixels, text):
        x = self.model.visual_projection(self.model.vision_model(pixels).last_hidden_state)
        for cross, own in self.cross_model.layers:
            cross, own = cross.fn, own.fn
            h = cross.norm(x)
            k, v = cross.to_kv(text).chunk(2, -1)
            x = x + cross.to_out(one_key_attention(cross.to_q(h), k.expand(len(x), -1, -1), v.expand(len(x), -1, -1), self.heads)) \
                + cross.ff[2](swiglu(cross.ff[0](h)))
            inner = self.heads * self.d
            fused = own.fused_attn_ff_proj(own.norm(x))
            q, k, v, ff = fused.split([inner, self.d, self.d, fused.shape[-1] - inner - 2 * self.d], -1)
            x = x + own.attn_out(one_key_attention(rotary(q, self.d), rotary(k, self.d), v, self.heads)) + own.ff_out[1](swiglu(ff))
        return x[:, 0]

    def score(self, pixels, ids, condition):
        text, pooled = self.tokens(ids)
        wanted, _ = self.tokens(condition)
        likeness = torch.einsum("bid,bjd->bij", text, wanted).amax(-1)[0]
        kept = text[:, likeness / likeness.max() > 0.3]
        image = torch.nn.functional.normalize(self.features(pixels, kept), dim=-1)
        return self.model.logit_scale.exp() * torch.nn.functional.normalize(pooled, dim=-1) @ image.T


MPS_CONDITION = ("light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, "
                 "instance, texture, quantity, attributes, position, number, location, word, things.")


def whole_mps():
    from transformers import CLIPTokenizer
    tokenizer = CLIPTokenizer.from_pretrained(text_data() / "shapes")
    text = {"vocab_size": 918, "bos_token_id": 916, "eos_token_id": 917, "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 32, "hidden_act": "gelu"}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": EDGE,
              "patch_size": 7, "hidden_act": "gelu"}
    config = {"model_type": "clip", "text_config": text, "vision_config": vision, "projection_dim": 40}
    encode = lambda t: tokenizer([t], padding="max_length", truncation=True, max_length=32, return_tensors="pt").input_ids

    def run(model, store):
        transform = processor("CLIPImageProcessorPil", size={"shortest_edge": EDGE}, crop_size={"height": EDGE, "width": EDGE})
        scored(store, lambda image, prompt: float(model.score(transform(image)[None].to(float_of(model)), encode(prompt),
                                                              encode(MPS_CONDITION))))
    return {"name": "score/mps", "about": "the formula of MPS's infer_one_sample", "make": lambda: Mps(config, 40, 2, 3, 8, 2), "run": run,
            "class": "Mps", "component": "reward", "dtype": "F32", "config": config, "skip": ("position_ids",),
            "wanted": lambda path: 0}


# ---- classifiers ----

def published_vit(name):
    """Names in files; the library itself calls its modules otherwise by now."""
    for new, old in (("layers.", "encoder.layer."), ("attention.q_proj", "attention.attention.query"), ("attention.k_proj", "attention.attention.key"),
                     ("attention.v_proj", "attention.attention.value"), ("attention.o_proj", "attention.output.dense"),
                     ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense")):
        name = name.replace(new, old)
    return name


def vit_case(name, about, n_labels=5, **config):
    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": EDGE,
              "patch_size": 7, **config}

    def make():
        from transformers import ViTConfig, ViTForImageClassification
        return ViTForImageClassification(ViTConfig(num_labels=n_labels, **config))

    def run(model, store):
        pixels = noise(1, 3, 3, config["image_size"], config["image_size"])
        store.input("pixel_values", pixels)
        store.output("logits", model(pixels.to(float_of(model))).logits)
    labels = {str(i): f"LABEL_{i}" for i in range(n_labels)}
    return {"name": "vit_classifier/" + name, "about": about, "make": make, "run": run, "class": "ViTForImageClassification", "component": "vit",
            "config": {"model_type": "vit", "id2label": labels, **config}, "dtype": "F32", "rename": published_vit}


def vits():
    return [vit_case("plain", "defaults otherwise"),
            vit_case("other", "no biases in attention, other activation and eps, picture no multiple of the patch", qkv_bias=False,
                     hidden_act="quick_gelu", layer_norm_eps=1e-4, image_size=31, patch_size=10, num_hidden_layers=1)]


# ---- whole rewards: pictures and prompts in, scores out ----

PROMPTS = ["a red circle above a blue square", "two large green stars", "Ein Café, naïve & co.", "a " * 60 + "heart"]


def scored(store, score):
    """score(PIL picture, prompt) of every picture with the prompts in turn."""
    store.output("scores", torch.tensor([[score(image, PROMPTS[i % 4]) for i, (_, image) in enumerate(pictures())]], dtype=torch.float64))


def text_data():
    return pathlib.Path(__file__).resolve().parent.parent / "tests/text/data"


def whole_image_reward():
    from transformers import BertTokenizerFast
    vision, text = {"width": 64, "layers": 2, "heads": 1}, {
        "vocab_size": 3602, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 96,
        "max_position_embeddings": 40, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0}
    vocab = {token: i for i, token in enumerate((text_data() / "wordpiece/vocab.txt").read_text().split("\n")[:-1])}
    tokenizer, transform = BertTokenizerFast(vocab=vocab), torchvision_8bit()

    def run(model, store):
        def score(image, prompt):
            ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
            kept = Store()
            model(kept, transform(image)[None].to(float_of(model)), ids.input_ids, [int(ids.attention_mask.sum())])
            return float(kept.tensors["out.rewards"])
        scored(store, score)
    return {"name": "score/image_reward", "about": "ImageReward.score", "make": lambda: ImageReward(EDGE, 7, vision, text, (24, 12, 8, 6)),
            "run": run, "class": "ImageReward", "component": "reward", "dtype": "F32", "config": {}, "skip": ("position_ids",),
            "wanted": lambda path: 0}


def whole_hps():
    import open_clip
    from transformers import CLIPTokenizer
    transform, tokenizer = hpsv2(), CLIPTokenizer.from_pretrained(text_data() / "shapes")
    vision = {"image_size": EDGE, "layers": 2, "width": 64, "patch_size": 7}
    text = {"context_length": 32, "vocab_size": 918, "width": 64, "heads": 1, "layers": 2}

    def run(model, store):
        def score(image, prompt):
            ids = tokenizer([prompt], padding="max_length", truncation=True, max_length=32, return_tensors="pt").input_ids
            pixels = transform(image)[None]
            if pixels.shape[-2:] != (EDGE, EDGE):  # left unpadded by the reference, which its network then refuses
                return 0.0
            return float(model.encode_image(pixels.to(float_of(model)), normalize=True)[0] @ model.encode_text(ids, normalize=True)[0])
        scored(store, score)
    return {"name": "score/hpsv2", "about": "hpsv2.score", "make": lambda: open_clip.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text),
            "run": run, "class": "CLIP", "component": "reward", "dtype": "F32", "config": {}, "prefix": "module."}


# ---- preprocessing ----

EDGE = 28
REAL = ["emoji_u1f600", "emoji_u1f34e", "emoji_u1f996"]


def pictures():
    """(name, PIL picture) of pictures by formula and of cut-outs of real ones in tests/reward/data."""
    from PIL import Image
    from golden_pipeline import picture
    for width, height in ((50, 60), (28, 28), (61, 29), (200, 33), (9, 5), (64, 37), (28, 20)):
        yield f"{width}x{height}", Image.fromarray(picture(f"{width}x{height}", width, height))
    folder = pathlib.Path(__file__).resolve().parent.parent / "tests/reward/data"
    for name, box in zip(REAL, ((0, 0, 72, 72), (3, 0, 60, 71), (0, 10, 72, 55))):
        yield name, Image.open(folder / f"{name}.png").convert("RGB").crop(box)


def clip_norm(transforms):
    return transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def torchvision_8bit():
    """ImageReward.py's _transform; open_clip's for inference is the same."""
    from torchvision import transforms as t
    return t.Compose([t.Resize(EDGE, interpolation=t.InterpolationMode.BICUBIC), t.CenterCrop(EDGE), t.ToTensor(), clip_norm(t)])


def torchvision_float():
    from torchvision import transforms as t
    return t.Compose([t.ToTensor(), t.Resize(EDGE, interpolation=t.InterpolationMode.BICUBIC, antialias=True), t.CenterCrop(EDGE),
                      clip_norm(t)])


def hpsv2():
    """hpsv2/src/open_clip/transform.py's image_transform with resize_longest_max, past its package (which wants a network)."""
    path = pathlib.Path(importlib.util.find_spec("hpsv2").origin).parent / "src/open_clip/transform.py"
    package = type(sys)("hps_clip")
    package.__path__ = [str(path.parent)]
    sys.modules["hps_clip"] = package
    spec = importlib.util.spec_from_file_location("hps_clip.transform", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.image_transform(EDGE, is_train=False, resize_longest_max=True)


def processor(name, **config):
    import numpy as np
    import transformers
    made = getattr(transformers, name)(**config)
    return lambda image: torch.from_numpy(np.asarray(made(image, return_tensors="np").pixel_values))[0]


PREPROCESS = {
    "torchvision": (torchvision_8bit, {"way": "even"}),
    "float": (torchvision_float, {"way": "float"}),
    "hpsv2": (hpsv2, {"way": "hps"}),
    "vit": (lambda: processor("ViTImageProcessorPil", size={"height": EDGE, "width": EDGE}),
            {"way": "file", "image_processor_type": "ViTImageProcessor", "size": {"height": EDGE, "width": EDGE}}),
    "blip": (lambda: processor("BlipImageProcessorPil", size={"height": EDGE, "width": EDGE}),
             {"way": "file", "image_processor_type": "BlipImageProcessor", "size": {"height": EDGE, "width": EDGE}}),
}


def preprocessing(out, only):
    for name, (make, config) in PREPROCESS.items():
        if not f"reward_preprocess/{name}".startswith(only):
            continue
        transform, store, sizes = make(), Store(), {}
        for label, image in pictures():
            if name == "hpsv2" and max(image.size) == EDGE and min(image.size) < EDGE:
                continue  # left as it is, which its network then refuses
            value = transform(image)
            sizes[label] = [image.width, image.height]
            store.output(label, value[None])
        dump(f"reward_preprocess/{name}", {"about": "what the reference makes of pictures", "config": config, "pictures": sizes}, store, out)


# ---- writing ----

def formula_model(case):
    """The case's network with the formula's weights, {name in the file: [offset, scale, shape]}, and their CRC-32."""
    torch.manual_seed(0)
    model = case["make"]()
    state = {n: t for n, t in model.state_dict().items() if not n.endswith(case.get("skip", ("attn_mask",)))}
    weights, crc = {}, 0
    rename = case.get("rename", lambda n: case.get("prefix", "") + n)
    inside = {rename(n): n for n in state}
    for name in sorted(inside):
        shape = list(state[inside[name]].shape)
        offset, scale = rule(name, shape)
        values = formula(name, shape, offset, scale)
        crc = zlib.crc32(values.numpy().tobytes(), crc)
        weights[name] = [offset, scale, shape]
        state[inside[name]] = values.to(DTYPES[case["dtype"]]).float()
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and all(n.endswith(case.get("skip", ("attn_mask",))) for n in missing.missing_keys), missing
    return model, weights, crc


def run_case(case, out):
    model, weights, crc = formula_model(case)
    store = Store()
    model = model.double().eval()
    wanted = case.get("wanted", lambda path: 192 if path.split(".")[-1].isdigit() and path.split(".")[-2] in ("blocks", "layer") else 0)
    distance = Distance(store)
    for target, dtype in ((store, torch.float64), (distance, torch.bfloat16)):
        hooks = watch(model.to(dtype), target, "", wanted)
        with torch.no_grad():
            case["run"](model, target)
        for hook in hooks:
            hook.remove()
    head = {"about": case["about"], "component": case["component"], "class": case["class"], "config": case["config"], "weights": weights,
            "extra": {}, "weights_crc32": crc, "file": "model.safetensors", "dtype": case["dtype"], "reference_bf16_error": float(f"{distance.worst:.3g}")}
    if "act" in case:
        head["act"] = case["act"]
    dump(case["name"], head, store, out)


def cases():
    return image_rewards() + open_clips() + vits() + [whole_image_reward(), whole_hps(), whole_mps()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--only", default="", help="cases whose name starts with this")
    options = parser.parse_args()
    torch.set_num_threads(2)
    for case in cases():
        if case["name"].startswith(options.only):
            run_case(case, options.out)
    preprocessing(options.out, options.only)


if __name__ == "__main__":
    main()
