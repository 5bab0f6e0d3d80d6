"""Checkpoint files for the tests of the readers: what torch.save writes, and single files in the original names.

    python tools/golden_checkpoint.py --torch tests/io/data/torch      the files of tests/io/pickle_test.c
    python tools/golden_checkpoint.py --single tests/golden/single     the cases of tests/model/single_test.c

A case of the second kind is NAME.json: the names and shapes of a small single-file checkpoint, whose numbers are make_golden.py's formula
of name and index; and what diffusers' own conversion makes of it: for each network the config that fits and the names with a CRC-32 of the
float32 numbers. The file's names are the inverse of that conversion, written here; that the networks load the result strictly proves it.
Needs torch, numpy, safetensors, diffusers.
"""
import argparse
import json
import pathlib
import types
import zlib
from collections import OrderedDict

import numpy as np
import torch
from safetensors.torch import save_file


def tensors():
    """Every dtype, and the layouts that PyTorch keeps: transposed, stepped, expanded, shared, empty, a single number."""
    torch.manual_seed(0)
    w = torch.randn(6, 4)
    small = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64", torch.int64: "i64", torch.int32: "i32",
             torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "bool", torch.uint16: "u16", torch.uint32: "u32"}
    out = OrderedDict((name, (torch.arange(6) - (0 if name[0] == "u" else 3)).to(dtype)) for dtype, name in small.items())
    out.update(w=w, transposed=w.t(), stepped=w[1:5:2, 1:], shared=w, expanded=torch.ones(1, 3).expand(4, 3), empty=torch.zeros(0, 4),
               number=torch.tensor(2.5), parameter=torch.nn.Parameter(w), deep=torch.randn(2, 3, 4, 2).permute(3, 1, 0, 2))
    return out


def torch_files(out):
    out.mkdir(parents=True, exist_ok=True)
    flat = tensors()
    save_file({k: v.detach().contiguous().clone() for k, v in flat.items()}, out / "twin.safetensors")
    torch.save(flat, out / "plain.pt")
    torch.save(dict(flat), out / "protocol5.pt", pickle_protocol=5)
    old = OrderedDict((k, v) for k, v in flat.items() if v.dtype not in (torch.uint16, torch.uint32))  # younger than the format
    torch.save(old, out / "old.pt", _use_new_zipfile_serialization=False)
    training = {"state_dict": flat, "global_step": 875000, "lr": 0.5, "name": "h\u00e9", "epoch": None, "flag": True,
                "callbacks": {"checkpoint": {"best": [1, (2, 3)], "path": None}}, "optimizer": {0: {"m": flat["w"]}}, 7: "seven",
                "score": np.float64(3), "array": np.arange(3), "device": torch.device("cpu"), "dtype": torch.float16,
                "size": torch.Size([1, 2]), "kinds": {1, 2}, "frozen": frozenset([1]), "bytes": b"abc", "large": 1 << 70}
    torch.save(training, out / "training.ckpt")
    w = flat["w"]
    torch.save({"string_to_token": {"*": 265}, "string_to_param": torch.nn.ParameterDict({"*": w}), "nested": {"a": {"b": [w, w]}}},
               out / "nested.pt")
    torch.save({"layer": torch.nn.Linear(2, 2)}, out / "module.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(out / "script.pt"))


# ---- single files ----

UNETS = {
    "sd1": dict(block_out_channels=[32, 64, 64], layers_per_block=2, cross_attention_dim=64, attention_head_dim=8, sample_size=64,
                down_block_types=["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"], up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2),
    "sd2": dict(block_out_channels=[64, 128], layers_per_block=1, cross_attention_dim=64, attention_head_dim=[1, 2], sample_size=64,
                use_linear_projection=True, down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
                up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"]),
    "xl": dict(block_out_channels=[64, 128, 128], layers_per_block=1, cross_attention_dim=192, attention_head_dim=[1, 2, 2], sample_size=128,
               use_linear_projection=True, transformer_layers_per_block=[1, 1, 3], addition_embed_type="text_time", addition_time_embed_dim=16,
               projection_class_embeddings_input_dim=96 + 6 * 16, down_block_types=["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
               up_block_types=["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"]),
    "refiner": dict(block_out_channels=[64, 64, 128], layers_per_block=1, cross_attention_dim=128, attention_head_dim=[1, 1, 2], sample_size=128,
                    use_linear_projection=True, transformer_layers_per_block=[1, 2, 2], addition_embed_type="text_time", addition_time_embed_dim=32,
                    projection_class_embeddings_input_dim=96 + 5 * 32,
                    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
                    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]),
    "lcm": dict(block_out_channels=[32, 64], layers_per_block=1, cross_attention_dim=48, attention_head_dim=8, sample_size=64,
                time_cond_proj_dim=24, down_block_types=["CrossAttnDownBlock2D"] * 2, up_block_types=["CrossAttnUpBlock2D"] * 2),
}
UNETS["inpaint"] = dict(UNETS["sd1"], in_channels=9)
VAES = {"small": dict(block_out_channels=[32, 64], layers_per_block=1), "deep": dict(block_out_channels=[32, 32, 64], layers_per_block=2)}
XL_VAE = dict(VAES["small"], scaling_factor=0.13025, sample_size=1024)


def unet_names(model):
    """{diffusers name: original name} of a UNet2DConditionModel."""
    layers = model.config.layers_per_block
    rows = {"conv_in.": "input_blocks.0.0.", "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.",
            "time_embedding.cond_proj.": "time_embed.cond_proj.", "add_embedding.linear_1.": "label_emb.0.0.",
            "add_embedding.linear_2.": "label_emb.0.2.", "conv_norm_out.": "out.0.", "conv_out.": "out.2.",
            "mid_block.resnets.0.": "middle_block.0.", "mid_block.attentions.0.": "middle_block.1.", "mid_block.resnets.1.": "middle_block.2."}
    for i, kind in enumerate(model.config.down_block_types):
        for k in range(layers):
            at = 1 + i * (layers + 1) + k
            rows[f"down_blocks.{i}.resnets.{k}."], rows[f"down_blocks.{i}.attentions.{k}."] = f"input_blocks.{at}.0.", f"input_blocks.{at}.1."
        rows[f"down_blocks.{i}.downsamplers.0.conv."] = f"input_blocks.{(i + 1) * (layers + 1)}.0.op."
    for i, kind in enumerate(model.config.up_block_types):
        for k in range(layers + 1):
            at = i * (layers + 1) + k
            rows[f"up_blocks.{i}.resnets.{k}."], rows[f"up_blocks.{i}.attentions.{k}."] = f"output_blocks.{at}.0.", f"output_blocks.{at}.1."
        rows[f"up_blocks.{i}.upsamplers.0.conv."] = f"output_blocks.{i * (layers + 1) + layers}.{2 if 'Cross' in kind else 1}.conv."
    resnet = {"norm1.": "in_layers.0.", "conv1.": "in_layers.2.", "time_emb_proj.": "emb_layers.1.", "norm2.": "out_layers.0.",
              "conv2.": "out_layers.3.", "conv_shortcut.": "skip_connection."}
    out = {}
    for name in model.state_dict():
        new = next(now + name[len(old):] for old, now in rows.items() if name.startswith(old))
        for old, now in resnet.items():
            if ".resnets." in name:
                new = new.replace(old, now)
        out[name] = new
    return out


def vae_names(model):
    n = len(model.config.block_out_channels)
    out = {}
    for name in model.state_dict():
        new = name
        for i in range(n):
            new = new.replace(f"down_blocks.{i}.resnets.", f"down.{i}.block.").replace(f"up_blocks.{i}.resnets.", f"up.{n - 1 - i}.block.")
            new = new.replace(f"down_blocks.{i}.downsamplers.0.", f"down.{i}.downsample.")
            new = new.replace(f"up_blocks.{i}.upsamplers.0.", f"up.{n - 1 - i}.upsample.")
        for old, now in (("mid_block.resnets.0.", "mid.block_1."), ("mid_block.resnets.1.", "mid.block_2."), ("mid_block.attentions.0.", "mid.attn_1."),
                         ("group_norm.", "norm."), ("to_q.", "q."), ("to_k.", "k."), ("to_v.", "v."), ("to_out.0.", "proj_out."),
                         ("conv_shortcut.", "nin_shortcut."), ("conv_norm_out.", "norm_out.")):
            new = new.replace(old, now)
        out[name] = new
    return out


def clip_shapes(width, inner, layers, vocab=1000, tokens=77):
    """A text tower's tensors under transformers' names."""
    rows = {"embeddings.token_embedding.weight": [vocab, width], "embeddings.position_embedding.weight": [tokens, width],
            "final_layer_norm.weight": [width], "final_layer_norm.bias": [width]}
    for i in range(layers):
        p = f"encoder.layers.{i}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            rows[p + f"self_attn.{part}.weight"], rows[p + f"self_attn.{part}.bias"] = [width, width], [width]
        for norm in ("layer_norm1", "layer_norm2"):
            rows[p + norm + ".weight"], rows[p + norm + ".bias"] = [width], [width]
        rows[p + "mlp.fc1.weight"], rows[p + "mlp.fc1.bias"] = [inner, width], [inner]
        rows[p + "mlp.fc2.weight"], rows[p + "mlp.fc2.bias"] = [width, inner], [width]
    return {"text_model." + k: v for k, v in rows.items()}


def open_clip_shapes(width, inner, layers, projection, vocab=1000, tokens=77):
    rows = {"token_embedding.weight": [vocab, width], "positional_embedding": [tokens, width], "ln_final.weight": [width], "ln_final.bias": [width],
            "text_projection": [width, projection], "logit_scale": []}
    for i in range(layers):
        p = f"transformer.resblocks.{i}."
        rows.update({p + "attn.in_proj_weight": [3 * width, width], p + "attn.in_proj_bias": [3 * width], p + "attn.out_proj.weight": [width, width],
                     p + "attn.out_proj.bias": [width], p + "ln_1.weight": [width], p + "ln_1.bias": [width], p + "ln_2.weight": [width],
                     p + "ln_2.bias": [width], p + "mlp.c_fc.weight": [inner, width], p + "mlp.c_fc.bias": [inner],
                     p + "mlp.c_proj.weight": [width, inner], p + "mlp.c_proj.bias": [width]})
    return rows


def text_config(width, inner, layers, act, projection=None):
    config = {"architectures": ["CLIPTextModelWithProjection" if projection else "CLIPTextModel"], "hidden_size": width, "intermediate_size": inner,
              "num_hidden_layers": layers, "num_attention_heads": width // 64, "hidden_act": act, "vocab_size": 1000, "max_position_embeddings": 77}
    return dict(config, **({"projection_dim": projection} if projection else {}))


class Single:
    """One single-file checkpoint and what diffusers makes of it."""

    def __init__(self, name, about):
        import make_golden
        self.name, self.about, self.make = name, about, make_golden
        self.file, self.components = OrderedDict(), OrderedDict()

    def put(self, name, shape):
        self.file[name] = self.make.formula(name, shape, *self.make.rule(name, shape))

    def part(self, name, config, tensors):
        rows = {k: zlib.crc32(v.detach().float().contiguous().numpy().tobytes()) for k, v in tensors.items()}
        self.components[name] = {"config": config, "tensors": OrderedDict(sorted(rows.items()))}

    def unet(self, kind, prefix="model.diffusion_model."):
        from diffusers import UNet2DConditionModel
        from diffusers.loaders import single_file_utils as utils
        model = UNet2DConditionModel(**UNETS[kind])
        shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
        for old, new in unet_names(model).items():
            self.put(prefix + new, shapes[old])
        full = {("model.diffusion_model." + k[len(prefix):]): v for k, v in self.file.items() if k.startswith(prefix)}
        state = utils.convert_ldm_unet_checkpoint(full, dict(model.config))
        if "time_embed.cond_proj.weight" in {k[len(prefix):] for k in self.file}:  # which that function forgets
            state["time_embedding.cond_proj.weight"] = self.file[prefix + "time_embed.cond_proj.weight"]
        model.load_state_dict(state, strict=True)
        self.part("unet", {k: model.config[k] for k in set(UNETS[kind]) | {"in_channels", "out_channels", "use_linear_projection", "mid_block_type"}},
                  state)

    def vae(self, config, prefix="first_stage_model."):
        from diffusers import AutoencoderKL
        from diffusers.loaders import single_file_utils as utils
        n = len(config["block_out_channels"])
        config = dict(config, down_block_types=["DownEncoderBlock2D"] * n, up_block_types=["UpDecoderBlock2D"] * n, latent_channels=4)
        model = AutoencoderKL(**config)
        for old, new in vae_names(model).items():
            shape = list(model.state_dict()[old].shape)
            self.put(prefix + new, shape + [1, 1] if ".attn_1." in new and len(shape) == 2 else shape)
        state = utils.convert_ldm_vae_checkpoint({k: v for k, v in self.file.items() if k.startswith(prefix)} if prefix else dict(self.file),
                                                 dict(model.config))
        model.load_state_dict(state, strict=True)
        self.part("vae", dict(config, scaling_factor=model.config.scaling_factor), state)

    def clip(self, prefix, width, inner, layers):
        rows = clip_shapes(width, inner, layers)
        for k, shape in rows.items():
            self.put(prefix + k, shape)
        self.put(prefix + "text_model.embeddings.position_ids", [1, 77])
        self.part("text_encoder", text_config(width, inner, layers, "quick_gelu"), {k: self.file[prefix + k] for k in rows})

    def open_clip(self, prefix, width, inner, layers, projection, second):
        from diffusers.loaders import single_file_utils as utils
        for k, shape in open_clip_shapes(width, inner, layers, projection).items():
            self.put(prefix + k, shape)
        owner = types.SimpleNamespace(config=types.SimpleNamespace(hidden_size=width))
        state = utils.convert_open_clip_checkpoint(owner, dict(self.file), prefix=prefix)
        self.part("text_encoder_2" if second else "text_encoder", text_config(width, inner, layers, "gelu", projection if second else None), state)

    def dump(self, out, **more):
        out.mkdir(parents=True, exist_ok=True)
        rule = {k: [list(v.shape), *self.make.rule(k, list(v.shape))] for k, v in self.file.items()}
        with open(out / (self.name + ".json"), "w", encoding="utf-8") as f:
            json.dump({"about": self.about, **more, "file": rule, "components": self.components}, f, separators=(",", ":"))


def single_files(out):
    for kind, about in (("sd1", "Stable Diffusion 1"), ("inpaint", "its inpainting model"), ("lcm", "a distilled one with guidance embedding")):
        s = Single(kind, about)
        s.unet(kind)
        s.vae(VAES["deep" if kind == "sd1" else "small"])
        if kind != "lcm":
            s.clip("cond_stage_model.transformer.", 64, 96, 2)
        for extra, shape in (("model_ema.decay", []), ("model_ema.diffusion_modelout2weight", [4]), ("betas", [1000]), ("first_stage_model.loss.logvar", [])):
            s.put(extra, shape)
        s.dump(out, family=kind, v_prediction=False)
    s = Single("sd2", "Stable Diffusion 2")
    s.unet("sd2")
    s.vae(VAES["small"])
    s.open_clip("cond_stage_model.model.", 64, 128, 3, 64, False)
    s.components["text_encoder"]["tensors"].pop("text_projection.weight", None)
    s.dump(out, family="sd2", v_prediction=False)
    s = Single("xl", "Stable Diffusion XL")
    s.unet("xl")
    s.vae(XL_VAE)
    s.clip("conditioner.embedders.0.transformer.", 64, 96, 2)
    s.open_clip("conditioner.embedders.1.model.", 128, 160, 2, 96, True)
    s.put("v_pred", [0])
    s.dump(out, family="xl", v_prediction=True)
    s = Single("refiner", "the refiner of Stable Diffusion XL")
    s.unet("refiner")
    s.vae(XL_VAE)
    s.open_clip("conditioner.embedders.0.model.", 128, 160, 2, 96, True)
    s.dump(out, family="refiner", v_prediction=False)
    s = Single("vae_alone", "an autoencoder without a prefix")
    s.vae(VAES["small"], "")
    s.dump(out, family="sd1", v_prediction=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch", type=pathlib.Path, help="folder for files of torch.save")
    parser.add_argument("--single", type=pathlib.Path, help="folder for descriptions of single files")
    options = parser.parse_args()
    if options.torch:
        torch_files(options.torch)
    if options.single:
        single_files(options.single)


if __name__ == "__main__":
    main()
