"""LoRA cases of make_golden.py: files that PEFT and diffusers wrote, in every key format, and what networks compute with them.

A case is one of make_golden's with a key "lora": a list of [file beside the case, scale]. The reference is diffusers with
the file loaded by diffusers itself (load_lora_adapter, load_lora_weights), in float64.
"""
import json
import math
import pathlib
import tempfile

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import golden_cases
import make_golden

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
FEED = ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
CONVS = ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "conv_out",
         "time_embedding.linear_1"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def randomize(model, seed):
    """Both factors of every layer at random: a fresh LoRA changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = torch.randn(p.shape, generator=generator) * (0.6 / math.sqrt(p.shape[1]))


def adapted(model, seed, **config):
    model.add_adapter(LoraConfig(init_lora_weights=False, **config))
    randomize(model, seed)
    return model


def half(tensors):
    return {k: v.to(torch.float16) if v.is_floating_point() and v.dim() > 0 else v for k, v in tensors.items()}


# ---- files ----

def rewrite(path, change):
    save_file({k: v.contiguous() for k, v in change(load_file(path)).items()}, path, {"format": "pt"})


def kohya_of(tensors, alpha):
    """PEFT keys to kohya's, as diffusers converts them, then with alphas of our own."""
    out = convert_state_dict_to_kohya(tensors)
    for i, k in enumerate(sorted(out)):
        if k.endswith(".alpha"):
            out[k] = torch.tensor(alpha + 0.25 * (i % 3))
    return out


def to_sgm(tensors, layers=2):
    """lora_unet_ names of diffusers to those of the original code, as kohya's trainer for SDXL writes them."""
    def resnet(name):
        for a, b in (("conv1", "in_layers_2"), ("conv2", "out_layers_3"), ("time_emb_proj", "emb_layers_1"),
                     ("conv_shortcut", "skip_connection")):
            name = name.replace(a, b)
        return name

    def one(key):
        if not key.startswith("lora_unet_"):
            return key
        name, rest = key[len("lora_unet_"):].split(".", 1)
        for a, b in (("conv_in", "input_blocks_0_0"), ("conv_out", "out_2"), ("time_embedding_linear_1", "time_embed_0"),
                     ("time_embedding_linear_2", "time_embed_2")):
            if name == a:
                return f"lora_unet_{b}.{rest}"
        parts = name.split("_")
        if name.startswith("mid_block"):
            kind, i = parts[2], int(parts[3])
            tail = "_".join(parts[4:])
            new = f"middle_block_{2 * i}_{resnet(tail)}" if kind == "resnets" else f"middle_block_1_{tail}"
        else:
            down, block, kind, i = parts[0] == "down", int(parts[2]), parts[3], int(parts[4])
            tail = "_".join(parts[5:])
            n = block * (layers + 1) + i + 1 if down else block * (layers + 1) + i
            head = "input_blocks" if down else "output_blocks"
            if kind == "resnets":
                new = f"{head}_{n}_0_{resnet(tail)}"
            elif kind == "attentions":
                new = f"{head}_{n}_1_{tail}"
            elif down:
                new = f"{head}_{(block + 1) * (layers + 1)}_0_op"
            else:
                new = f"{head}_{block * (layers + 1) + layers}_{UP_SAMPLER[0]}_conv"
        return f"lora_unet_{new}.{rest}"
    return {one(k): v for k, v in tensors.items()}


UP_SAMPLER = [2]


def processors(tensors):
    """Keys of diffusers' attention processors of 2023."""
    out = {}
    for k, v in tensors.items():
        k = k.replace("to_out.0.lora_", "to_out.lora_")
        head, name, letter, _ = k.rsplit(".", 3)
        direction = {"lora_A": "down", "lora_B": "up"}[letter]
        out[f"unet.{head}.processor.{name}_lora.{direction}.weight"] = v
    return out


def new_diffusers(tensors):
    return {k.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): v for k, v in tensors.items()}


# ---- the networks ----

UNET = {"block_out_channels": [16, 32], "norm_num_groups": 8, "attention_head_dim": 2, "layers_per_block": 1,
        **golden_cases.CROSS2}
UNET_XL = {"block_out_channels": [16, 16, 24], "norm_num_groups": 8, "attention_head_dim": [1, 2, 3], "layers_per_block": 2,
           "transformer_layers_per_block": [1, 1, 2], "use_linear_projection": True, **golden_cases.CROSS3}
CLIP = {"vocab_size": 99, "bos_token_id": 97, "eos_token_id": 98, "pad_token_id": 98, "hidden_size": 24,
        "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 12}
CLIP_2 = {**CLIP, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "hidden_act": "gelu",
          "projection_dim": 20}


def unet_case(name, about, config, files):
    case = golden_cases.unet(name, about, **config)
    return {**case, "name": "lora/" + name, "lora": files}


def text_case(name, about, config, files, second=False):
    case = golden_cases.clip_text(name, about, **config)
    case = {**case, "name": "lora/" + name, "lora": files, "part": "text_encoder_2" if second else "text_encoder"}
    if second:
        def run(model, store):
            ids = golden_cases.prompt_ids(99, 97, 98, 98, 12, 2, 1)
            store.input("input_ids", ids)
            out = model(input_ids=ids)
            store.output("last_hidden_state", out.last_hidden_state)
            store.output("text_embeds", out.text_embeds)
        case.update({"class": CLIPTextModelWithProjection, "run": run, "tap_prefix": "",
                     "make": lambda: CLIPTextModelWithProjection(CLIPTextConfig(**config)),
                     "rename": lambda n: n if n.startswith(("text_model.", "text_projection")) else "text_model." + n})
    return case


def pipe_of(unet, *texts):
    """A pipeline that only reads LoRA files."""
    none = {"vae": None, "tokenizer": None, "scheduler": None}
    if len(texts) == 2:
        return StableDiffusionXLPipeline(unet=unet, text_encoder=texts[0], text_encoder_2=texts[1], tokenizer_2=None,
                                         **none)
    return StableDiffusionPipeline(unet=unet, text_encoder=texts[0] if texts else None, safety_checker=None,
                                   feature_extractor=None, requires_safety_checker=False, **none)


# ---- writing the files ----

def layers_of(model):
    return get_peft_model_state_dict(model)


def write_files(out):
    """Every LoRA file of the cases, into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    unet, text = UNet2DConditionModel(**{"cross_attention_dim": 24, "sample_size": 8, **UNET}), CLIPTextModel(CLIPTextConfig(**CLIP))
    # diffusers' own writer, with patterns in its metadata
    adapted(unet, 1, r=3, lora_alpha=5, target_modules=ATTENTION + FEED + CONVS, rank_pattern={"attn1.to_q": 5, "conv1": 2},
            alpha_pattern={"attn2.to_k": 1, "ff.net.2": 7})
    unet.save_lora_adapter(out, weight_name="adapter.safetensors")
    unet.delete_adapters("default")
    # both networks of a pipeline
    adapted(unet, 2, r=2, lora_alpha=4, target_modules=ATTENTION + ["ff.net.0.proj"])
    adapted(text, 3, r=2, lora_alpha=3, target_modules=TEXT, use_rslora=True)
    StableDiffusionPipeline.save_lora_weights(
        out, unet_lora_layers=layers_of(unet), text_encoder_lora_layers=layers_of(text), weight_name="pipeline.safetensors",
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
        text_encoder_lora_adapter_metadata=text.peft_config["default"].to_dict())
    StableDiffusionPipeline.save_lora_weights(out, unet_lora_layers=layers_of(unet), weight_name="diffusers.safetensors")
    rewrite(out / "diffusers.safetensors", new_diffusers)
    save_file(half(processors({k: v for k, v in layers_of(unet).items() if ".ff." not in k})), out / "processor.safetensors",
              {"format": "pt"})
    unet.delete_adapters("default")
    # kohya, with alphas, in half precision
    adapted(unet, 4, r=4, target_modules=ATTENTION + FEED + CONVS)
    tensors = {"unet." + k: v for k, v in layers_of(unet).items()}
    tensors.update({"text_encoder." + k: v for k, v in layers_of(text).items()})
    old = {k.replace("lora_te1_", "lora_te_"): v for k, v in kohya_of(tensors, 1.5).items()}
    save_file(half(text_names(old)), out / "kohya.safetensors", {"format": "pt"})
    write_xl(out)


def text_names(tensors):
    """Newer library versions leave text_model out; files have it."""
    def one(k):
        for head in ("lora_te_", "lora_te1_", "lora_te2_"):
            if k.startswith(head + "encoder"):
                return k.replace(head, head + "text_model_", 1)
        return k
    return {one(k): v for k, v in tensors.items()}


def write_xl(out):
    unet = UNet2DConditionModel(**{"cross_attention_dim": 24, "sample_size": 8, **UNET_XL})
    one, two = CLIPTextModel(CLIPTextConfig(**CLIP)), CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_2))
    adapted(unet, 5, r=2, target_modules=ATTENTION + FEED + CONVS)
    adapted(one, 6, r=2, target_modules=TEXT)
    adapted(two, 7, r=3, target_modules=TEXT)
    tensors = {}
    for prefix, model in (("unet.", unet), ("text_encoder.", one), ("text_encoder_2.", two)):
        tensors.update({prefix + k: v for k, v in layers_of(model).items()})
    save_file(half(to_sgm(text_names(kohya_of(tensors, 1.0)))), out / "kohya_xl.safetensors", {"format": "pt"})


def cases():
    return [
        unet_case("adapter", "save_lora_adapter: all layers, convolutions too; rank and alpha patterns in the metadata",
                  UNET, [["adapter.safetensors", 1.0]]),
        unet_case("pipeline_unet", "save_lora_weights of a pipeline, at half strength", UNET, [["pipeline.safetensors", 0.5]]),
        text_case("pipeline_text", "the text encoder of the same file, rank-stabilised", CLIP, [["pipeline.safetensors", 0.5]]),
        unet_case("diffusers", "keys .lora.down.weight without metadata: scale 1", UNET, [["diffusers.safetensors", 1.0]]),
        unet_case("processor", "keys of attention processors, float16", UNET, [["processor.safetensors", 0.75]]),
        unet_case("kohya_unet", "kohya's names with alphas, convolutions, float16", UNET, [["kohya.safetensors", 1.0]]),
        text_case("kohya_text", "lora_te_ of the same file", CLIP, [["kohya.safetensors", 1.0]]),
        unet_case("several", "three files at once, one of them taken away", UNET,
                  [["adapter.safetensors", 0.25], ["kohya.safetensors", 0.5], ["pipeline.safetensors", -0.5]]),
        unet_case("xl_unet", "kohya's SDXL names of the original code, linear projections, two transformer layers", UNET_XL,
                  [["kohya_xl.safetensors", 1.0]]),
        text_case("xl_text", "lora_te1_", CLIP, [["kohya_xl.safetensors", 0.8]]),
        text_case("xl_text_2", "lora_te2_, with a projection", CLIP_2, [["kohya_xl.safetensors", 0.8]], second=True),
    ]


# ---- the reference ----

def load_into(case, model, folder):
    """`model` with the case's files, read by diffusers."""
    part = case.get("part", "unet")
    names, scales = [], []
    for i, (file, scale) in enumerate(case["lora"]):
        names.append(f"a{i}")
        scales.append(scale)
        if file == "adapter.safetensors":
            model.load_lora_adapter(folder, weight_name=file, adapter_name=names[-1], prefix=None)
            continue
        xl = file.startswith("kohya_xl")  # the other networks are fresh: only `model` is looked at
        unet = UNet2DConditionModel(**{"cross_attention_dim": 24, "sample_size": 8, **(UNET_XL if xl else UNET)})
        parts = {"unet": unet, "text_encoder": CLIPTextModel(CLIPTextConfig(**CLIP)), part: model}
        if xl:
            parts = {"text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_2)), **parts}
        pipe = pipe_of(*[parts[p] for p in ("unet", "text_encoder", "text_encoder_2") if p in parts])
        pipe.load_lora_weights(folder, weight_name=file, adapter_name=names[-1])
        if part != "unet":
            pipe.set_adapters([names[-1]], [scale])
    if part == "unet":
        model.set_adapters(names, scales)
    return model


def run_case(case, out):
    store = make_golden.Store()
    with tempfile.TemporaryDirectory() as folder:
        head = make_golden.write_folder(case, folder)
        key = "torch_dtype" if "diffusers" in case["class"].__module__ else "dtype"
        plain = case["class"].from_pretrained(folder, **{key: torch.float32}).double().eval()
        model = case["class"].from_pretrained(folder, **{key: torch.float32})
    model = load_into(case, model, out / "lora/files").double().eval()
    with torch.no_grad():
        before = make_golden.Store()
        case["run"](plain, before)
        hooks = make_golden.watch(model, store, case.get("tap_prefix", ""), make_golden.wanted_path)
        case["run"](model, store)
    for h in hooks:
        h.remove()
    moved = min(float((store.tensors["out." + n] - before.tensors["out." + n]).norm() / before.tensors["out." + n].norm())
                for n in store.outputs)
    if not moved > 0.05:
        raise SystemExit(f"{case['name']}: the LoRA changes the outputs by {moved:.1e} only; it was not applied")
    head = {"about": case["about"], "component": case["component"], "class": case["class"].__name__,
            "part": case.get("part", "unet"), "lora": case["lora"], **head,
            "reference_bf16_error": make_golden.bfloat16_error(case, model, store)}
    make_golden.dump(case["name"], head, store, out)
    print(f"    changes the outputs by {moved:.2f}")


# ---- textual inversion ----

def write_inversions(out):
    """One file of each kind, five vectors in all, in the order in which the test gives them."""
    out.mkdir(parents=True, exist_ok=True)
    rows = torch.randn(5, CLIP["hidden_size"], generator=torch.Generator().manual_seed(9))
    save_file({"<one>": rows[:2].clone()}, out / "learned_embeds.safetensors")
    torch.save({"<two>": rows[2].clone()}, out / "learned_embeds.bin")
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": rows[3:4].clone().requires_grad_()}, "name": "three",
                "step": 100, "sd_checkpoint": None, "sd_checkpoint_name": None}, out / "a1111.pt")
    save_file({"emb_params": rows[4:5].clone()}, out / "four.safetensors")
    return rows


def inversion_case(rows):
    case = text_case("text", "five rows below the vocabulary, as resize_token_embeddings adds them", CLIP, [])

    def run(model, store):
        model.resize_token_embeddings(99 + len(rows), mean_resizing=False)
        model.get_input_embeddings().weight.data[99:] = rows.to(model.dtype)
        ids = torch.tensor([[97, 5, 99, 100, 7, 101, 98, 98, 98, 98, 98, 98], [97, 102, 103, 8, 99, 98, 98, 98, 98, 98, 98, 98]])
        store.input("input_ids", ids)
        out = model(input_ids=ids)
        store.output("last_hidden_state", out.last_hidden_state)
        store.output("pooler_output", out.pooler_output)
    return {**case, "name": "inversion/text", "run": run}


def run_inversion(out):
    case = inversion_case(write_inversions(out / "inversion/files"))
    make_golden.run_case(case, out)


def run(out, only):
    if "inversion".startswith(only) or only.startswith("inversion"):
        run_inversion(out)
    if not ("lora".startswith(only) or only.startswith("lora")):
        return
    write_files(out / "lora/files")
    for case in cases():
        if case["name"].startswith(only):
            run_case(case, out)
