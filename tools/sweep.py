#!/usr/bin/env python3
"""Random configurations of one network, through the reference implementation and through `kac run`, compared.

    python tools/sweep.py unet --n 100 --kac build/kac        also: unet_plain, vae, tiny, clip_text, clip
    python tools/sweep.py unet --only 17 --seed 3             one of them again, with its configuration printed

Run by hand after changes to a network: the golden cases pin known configurations, this looks for unknown ones. Weights are
the golden files' formula, the reference runs in float64. A configuration that the reference itself cannot build or run is
drawn anew; one that kac refuses is listed with its message. Exit code 1 when anything differs by more than --tolerance and
by more than three times what the reference's own float32 run does (small groups make norms sensitive).
Needs what make_golden.py needs.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import golden_cases as cases
import make_golden as golden


class Tensors:
    """In place of a Store: everything, whole."""

    def __init__(self):
        self.inputs, self.outputs = {}, {}

    def input(self, name, value):
        self.inputs[name] = value.contiguous().clone()

    def output(self, name, value):
        self.outputs[name] = value.detach().clone()


def maybe(r, p, value):
    return value if r.random() < p else None


def drop_none(config):
    return {k: v for k, v in config.items() if v is not None}


# ---- the networks ----

def unet_levels(r):
    """Block types, widths, head counts and depths of one to four levels."""
    n = r.choice([1, 2, 2, 3, 3, 4])
    groups = r.choice([2, 4, 8])
    heads = r.choice([1, 2, 4])
    widths = [groups * heads * r.choice([1, 2, 3]) * r.choice([1, 2]) for _ in range(n)]
    kinds = [r.choice(["CrossAttn", "CrossAttn", "", "Attn", "Resnet"]) for _ in range(n)]
    names = {"": ("DownBlock2D", "UpBlock2D"), "CrossAttn": ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"),
             "Attn": ("AttnDownBlock2D", "AttnUpBlock2D"), "Resnet": ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")}
    ups = kinds[::-1] if r.random() < 0.7 else [r.choice([k for k in names if k != "Resnet"]) for _ in range(n)]
    return {"block_out_channels": [max(w, 4) for w in widths], "norm_num_groups": groups,
            "down_block_types": [names[k][0] for k in kinds], "up_block_types": [names[k][1] for k in ups]}, heads


def depths(r, layers, mid):
    """transformer_layers_per_block: a number, a list, or lists inside lists."""
    n = len(layers)
    kind = r.choice(["one", "one", "list", "lists"])
    if kind == "one":
        return {"transformer_layers_per_block": r.choice([1, 1, 2])}
    if kind == "list":
        return {"transformer_layers_per_block": [r.choice([0, 1, 1, 2]) for _ in range(n)]}
    def entry(k):
        return r.choice([r.choice([1, 2]), [r.choice([0, 1, 2]) for _ in range(k)]])
    return {"transformer_layers_per_block": [entry(k) for k in layers],
            "reverse_transformer_layers_per_block": [entry(k + 1) for k in layers[::-1]]}


def draw_unet(r, name):
    config, heads = unet_levels(r)
    n = len(config["block_out_channels"])
    layers = [r.choice([1, 1, 2]) for _ in range(n)]
    config["layers_per_block"] = layers if r.random() < 0.3 else layers[0]
    if not isinstance(config["layers_per_block"], list):
        layers = [layers[0]] * n
    mid = r.choice(["UNetMidBlock2DCrossAttn"] * 3 + ["UNetMidBlock2D", None])
    config.update(depths(r, layers, mid))
    config["attention_head_dim"] = r.choice([heads, [heads] * n])
    config["cross_attention_dim"] = r.choice([8, 24, 40])
    config["mid_block_type"] = mid
    config.update(drop_none({
        "use_linear_projection": maybe(r, 0.5, True), "act_fn": maybe(r, 0.3, r.choice(["gelu", "mish", "relu", "swish"])),
        "norm_eps": maybe(r, 0.2, 1e-6), "freq_shift": maybe(r, 0.2, 1), "flip_sin_to_cos": maybe(r, 0.2, False),
        "center_input_sample": maybe(r, 0.2, True), "downsample_padding": maybe(r, 0.2, 0),
        "mid_block_scale_factor": maybe(r, 0.2, 1.4), "upcast_attention": maybe(r, 0.2, True),
        "only_cross_attention": maybe(r, 0.2, r.choice([True, [r.random() < 0.5 for _ in range(n)]])),
        "resnet_time_scale_shift": maybe(r, 0.2, "scale_shift"), "resnet_skip_time_act": maybe(r, 0.2, True),
        "resnet_out_scale_factor": maybe(r, 0.2, 1.3), "time_embedding_type": maybe(r, 0.1, "fourier"),
        "time_embedding_dim": maybe(r, 0.2, 36), "time_embedding_act_fn": maybe(r, 0.1, "silu"),
        "timestep_post_act": maybe(r, 0.1, "gelu"), "time_cond_proj_dim": maybe(r, 0.2, 14),
        "conv_in_kernel": maybe(r, 0.1, 5), "conv_out_kernel": maybe(r, 0.1, 1), "in_channels": maybe(r, 0.2, 9),
        "out_channels": maybe(r, 0.1, 8), "cross_attention_norm": maybe(r, 0.1, "layer_norm"),
        "encoder_hid_dim": maybe(r, 0.2, 32), "sample_size": maybe(r, 0.2, [6, 10])}))
    extra = {}
    kind = r.choice([None, None, None, "table", "timestep", "identity", "projection", "simple_projection"])
    if kind == "table":
        config["num_class_embeds"] = 11
    elif kind:
        config["class_embed_type"] = kind
    addition = r.choice([None, None, "text_time", "text"])
    if kind in ("projection", "simple_projection") or addition == "text_time":
        config["projection_class_embeddings_input_dim"] = 70
    if addition == "text_time":
        extra["time_ids"] = [512.0, 640, 0, 32, 1024, 768][:r.choice([5, 6])]
        config.update(addition_embed_type="text_time", addition_time_embed_dim=r.choice([8, 10]))
    elif addition == "text":
        config.update(addition_embed_type="text", addition_embed_type_num_heads=r.choice([1, 2, 4]))
    elif kind and kind != "table":
        config.update(drop_none({"class_embeddings_concat": maybe(r, 0.4, True)}))
    fourier = config.get("time_embedding_type") == "fourier"
    batch = r.choice([1, 2, 3])
    times = [r.uniform(0.01, 2) if fourier else r.choice([0, 1, 37.25, 500, 999]) for _ in range(batch)]
    if kind == "identity":
        config.pop("time_embedding_dim", None)
        config.pop("time_embedding_type", None)
    return cases.unet(name, "", latent=(r.choice([4, 5, 8, 12]), r.choice([4, 7, 8])), n=batch, tokens=r.choice([1, 5, 77]),
                      t=tuple(times) if r.random() < 0.5 else (times[0],), dtype=r.choice(["F32", "F32", "F16", "BF16"]),
                      **extra, **config), config


def draw_unet_plain(r, name):
    n, groups, dim = r.choice([1, 2, 3]), r.choice([2, 4, 8]), r.choice([2, 4, 8])
    kinds = [r.choice(["", "Attn", "Resnet"]) for _ in range(n)]
    down = {"": "DownBlock2D", "Attn": "AttnDownBlock2D", "Resnet": "ResnetDownsampleBlock2D"}
    up = {"": "UpBlock2D", "Attn": "AttnUpBlock2D", "Resnet": "ResnetUpsampleBlock2D"}
    sampler = r.choice(["conv", "conv", "resnet"])
    config = {"in_channels": r.choice([1, 3, 4]), "block_out_channels": [8 * r.choice([1, 2, 3]) for _ in range(n)],
              "layers_per_block": r.choice([1, 2]), "norm_num_groups": groups, "attention_head_dim": r.choice([dim, None]),
              "down_block_types": [down[k] for k in kinds], "up_block_types": [up[k] for k in kinds[::-1]],
              "downsample_type": sampler, "upsample_type": sampler}
    config["out_channels"] = config["in_channels"]
    config.update(drop_none({
        "act_fn": maybe(r, 0.3, r.choice(["gelu", "mish", "relu"])), "norm_eps": maybe(r, 0.2, 1e-6),
        "freq_shift": maybe(r, 0.3, 1), "flip_sin_to_cos": maybe(r, 0.3, False), "center_input_sample": maybe(r, 0.2, True),
        "downsample_padding": maybe(r, 0.3, 0), "mid_block_scale_factor": maybe(r, 0.3, 1.4),
        "add_attention": maybe(r, 0.2, False), "attn_norm_num_groups": maybe(r, 0.2, 2),
        "resnet_time_scale_shift": maybe(r, 0.4, "scale_shift"), "num_class_embeds": maybe(r, 0.3, 9),
        "time_embedding_type": maybe(r, 0.2, "fourier"), "time_embedding_dim": maybe(r, 0.2, 36)}))
    if r.random() < 0.15:
        config["mid_block_type"] = None
    if r.random() < 0.2 and "time_embedding_dim" not in config:
        config.pop("num_class_embeds", None)
        config["class_embed_type"] = "identity" if r.random() < 0.5 else "timestep"
    batch = r.choice([1, 2, 3])
    return cases.unet_plain(name, "", size=(r.choice([4, 8, 12]), r.choice([4, 8, 16])), n=batch,
                            t=tuple(r.uniform(0.5, 900) for _ in range(batch)), **config), config


def draw_vae(r, name):
    n, groups = r.choice([1, 2, 3, 4]), r.choice([2, 4, 8])
    config = {"block_out_channels": [groups * r.choice([1, 2, 3]) for _ in range(n)], "norm_num_groups": groups,
              "layers_per_block": r.choice([1, 2]), "latent_channels": r.choice([1, 4, 16]), "in_channels": r.choice([1, 3, 4])}
    config["out_channels"] = config["in_channels"]
    config.update(drop_none({"act_fn": maybe(r, 0.3, r.choice(["gelu", "mish", "relu"])),
                             "use_quant_conv": maybe(r, 0.3, False), "use_post_quant_conv": maybe(r, 0.3, False),
                             "mid_block_add_attention": maybe(r, 0.3, False), "force_upcast": maybe(r, 0.3, False)}))
    f = 2 ** (n - 1)
    return cases.vae(name, "", image=(f * r.choice([2, 3, 5]), f * r.choice([1, 4])), n=r.choice([1, 2]),
                     dtype=r.choice(["F32", "F16", "BF16"]), rename=r.choice([None, cases.old_attention]), **config), config


def draw_tiny(r, name):
    n, width, decoder = r.choice([2, 3, 4]), r.choice([4, 8, 12]), r.choice([4, 8])
    config = {"encoder_block_out_channels": [width] * n, "decoder_block_out_channels": [decoder] * n,
              "num_encoder_blocks": [r.choice([1, 2, 3]) for _ in range(n)],
              "num_decoder_blocks": [r.choice([1, 2, 3]) for _ in range(n)], "latent_channels": r.choice([4, 16]),
              "act_fn": r.choice(["relu", "relu", "silu", "gelu"])}
    f = 2 ** (n - 1)
    return cases.tiny(name, "", image=(f * r.choice([1, 3]), f * r.choice([2, 5])), n=r.choice([1, 2]), **config), config


def draw_clip_text(r, name):
    heads = r.choice([1, 2, 4])
    length = r.choice([5, 16, 77])
    config = {"hidden_size": heads * r.choice([4, 10, 16]), "num_attention_heads": heads,
              "intermediate_size": r.choice([24, 50, 96]), "num_hidden_layers": r.choice([1, 2, 4]),
              "max_position_embeddings": 77, "hidden_act": r.choice(["quick_gelu", "gelu", "gelu_new", "silu", "relu"]),
              "projection_dim": r.choice([8, 24]), "layer_norm_eps": r.choice([1e-5, 1e-6]),
              "pad_token_id": r.choice([0, 98]), "eos_token_id": r.choice([2, 98])}
    return cases.clip_text(name, "", n=r.choice([1, 3]), length=length, prefix=r.random() < 0.6, eos_in_ids=98,
                           dtype=r.choice(["F32", "F16", "BF16"]), projection=r.random() < 0.5, **config), config


DRAW = {"unet": draw_unet, "unet_plain": draw_unet_plain, "vae": draw_vae, "tiny": draw_tiny, "clip_text": draw_clip_text}
RUNS = {"unet": [("unet", ["sample"])], "unet_plain": [("unet", ["sample"])], "tiny": [("vae.encode", ["latents"]),
        ("vae.decode", ["sample"])], "vae": [("vae.encode", ["moments"]), ("vae.decode", ["sample"])],
        "clip_text": [("text_encoder", ["last_hidden_state", "pooler_output", "text_embeds"])]}


# ---- one configuration ----

def reference(case, folder):
    """What it computes in float64, and how far its own float32 run is from that."""
    golden.write_folder(case, folder)
    model, tensors, single = golden.load_double(case, folder), Tensors(), Tensors()
    with torch.no_grad():
        case["run"](model, tensors)
        cases.FLOAT[0] = torch.float32
        try:
            case["run"](model.float(), single)
        finally:
            cases.FLOAT[0] = torch.float64
    if not all(torch.isfinite(t).all() for t in tensors.outputs.values()):
        raise ValueError("the reference is not finite")
    return tensors, max(relative(single.outputs[name], want) for name, want in tensors.outputs.items())


def relative(got, want):
    if got.shape != want.shape:
        return float("inf")
    return float((got.double() - want).norm() / want.norm().clamp(min=1e-30))


def compare(kac, kind, folder, tensors):
    """(worst relative error, where) or a message of kac's."""
    worst, where = 0.0, ""
    save_file(tensors.inputs, f"{folder}/in.safetensors")
    for component, outputs in RUNS[kind]:
        command = [kac, "run", component, "--model", folder, "--in", f"{folder}/in.safetensors", "--out",
                   f"{folder}/out.safetensors", "--threads", "2"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return None, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        got = load_file(f"{folder}/out.safetensors")
        for name in outputs:
            if name not in tensors.outputs:
                continue
            error = relative(got[name], tensors.outputs[name])
            if not error <= worst:
                worst, where = error, f"{component} {name}"
    return worst, where


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=sorted(DRAW))
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this one alone")
    parser.add_argument("--kac", default="build/kac")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    options = parser.parse_args()
    torch.set_num_threads(2)
    n_good = n_refused = n_bad = n_impossible = 0
    largest = 0.0
    for i in range(options.n) if options.only is None else [options.only]:
        r = random.Random(options.seed * 1000003 + i)
        for _attempt in range(50):
            case, config = DRAW[options.kind](r, f"sweep {i}")
            with tempfile.TemporaryDirectory() as folder:
                try:
                    tensors, own_error = reference(case, folder)
                except (RuntimeError, ValueError, IndexError, AttributeError, TypeError, ZeroDivisionError) as e:
                    n_impossible += 1
                    if options.only is not None:
                        print("the reference cannot:", str(e).splitlines()[0], json.dumps(config))
                    continue
                error, where = compare(options.kac, options.kind, folder, tensors)
            break
        else:
            continue
        if error is None:
            n_refused += 1
            print(f"{i}: {where}\n   {json.dumps(config)}")
        elif not error <= max(options.tolerance, 3 * own_error):
            n_bad += 1
            print(f"{i}: {where} differs by {error:.2e}, the reference in float32 by {own_error:.2e}\n   {json.dumps(config)}")
        else:
            n_good += 1
            largest = max(largest, error)
        if options.only is not None:
            print(json.dumps(config), error, where)
    print(f"{options.kind}: {n_good} agree (largest {largest:.1e}), {n_bad} differ, {n_refused} refused; "
          f"{n_impossible} draws that the reference cannot run")
    sys.exit(1 if n_bad else 0)


if __name__ == "__main__":
    main()
