"""The networks that make_golden.py runs: one entry per configuration, small, each with something the others lack."""
import math

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, UNet2DModel
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection


FLOAT = [torch.float64]  # what the networks run in


def cast(x):
    return x.to(FLOAT[0])


def noise(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- UNet2DConditionModel ----

def unet_conditions(config, n, time_ids=None):
    """What a network reads beside sample, timestep and text, as its configuration wants it: random rows."""
    given = {}
    if config.get("addition_embed_type") == "text_time":
        width = config["projection_class_embeddings_input_dim"] - len(time_ids) * config["addition_time_embed_dim"]
        given["text_embeds"] = noise(3, n, width)
        given["time_ids"] = torch.tensor(time_ids, dtype=torch.float32) + torch.arange(n)[:, None] * 8.0
    if config.get("time_cond_proj_dim"):
        given["timestep_cond"] = noise(4, n, config["time_cond_proj_dim"])
    kind = config.get("class_embed_type")
    if kind == "timestep" or (kind is None and config.get("num_class_embeds")):
        given["class_labels"] = torch.arange(n) * 3 + 1
    elif kind == "identity":
        given["class_labels"] = noise(5, n, 4 * config["block_out_channels"][0])
    elif kind:
        given["class_labels"] = noise(5, n, config["projection_class_embeddings_input_dim"])
    return given


def run_unet(model, sample, step, text, given):
    """The forward pass with those conditions under the arguments where the reference wants them."""
    given = {k: v if v.dtype == torch.int64 or k == "time_ids" else cast(v) for k, v in given.items()}
    if "text_embeds" in given:
        given["added_cond_kwargs"] = {"text_embeds": given.pop("text_embeds"), "time_ids": given.pop("time_ids")}
    return model(cast(sample), step, *([] if text is None else [cast(text)]), **given).sample


def unet(name, about, latent=(8, 8), n=2, tokens=7, t=(501.0,), time_ids=None, drop=(), keep=(), dtype="F32", **config):
    config = {"sample_size": latent[0], "cross_attention_dim": 24, **config}

    def run(model, store):
        sample = noise(1, n, model.config.in_channels, *latent)
        text = noise(2, n, tokens, config.get("encoder_hid_dim") or config["cross_attention_dim"])
        timestep = torch.tensor(t, dtype=torch.float32)
        given = unet_conditions(config, n, time_ids)
        for key, value in (("sample", sample), ("timestep", timestep), ("encoder_hidden_states", text), *given.items()):
            store.input(key, value)
        step = timestep.double() if len(t) > 1 else timestep.double()[0]
        store.output("sample", run_unet(model, sample, step, text, given))
    return {"name": "unet/" + name, "about": about, "component": "unet", "class": UNet2DConditionModel, "run": run,
            "make": lambda: UNet2DConditionModel(**config), "drop": drop, "keep": keep, "dtype": dtype}


CROSS3 = {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
          "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]}
CROSS2 = {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}
PLAIN3 = {"down_block_types": ["DownBlock2D"] * 3, "up_block_types": ["UpBlock2D"] * 3}
# the keys that the oldest published configurations have
OLD_KEYS = ("act_fn", "attention_head_dim", "block_out_channels", "center_input_sample", "cross_attention_dim",
            "down_block_types", "downsample_padding", "flip_sin_to_cos", "freq_shift", "in_channels", "layers_per_block",
            "mid_block_scale_factor", "norm_eps", "norm_num_groups", "out_channels", "sample_size", "up_block_types")


def unets():
    return [
        unet("sd1", "SD1.x in small: four levels, one head count, 1x1 projections; head dimensions 5 to 10",
             latent=(16, 8), block_out_channels=[20, 40, 40, 40], norm_num_groups=4, attention_head_dim=4, tokens=11,
             keep=OLD_KEYS),
        unet("sd2", "SD2.x in small: linear projections, a head count per level, upcast_attention, one timestep per row",
             latent=(16, 8), block_out_channels=[16, 32, 48, 48], norm_num_groups=8, attention_head_dim=[1, 2, 3, 3],
             use_linear_projection=True, upcast_attention=True, t=(981.0, 1.0)),
        unet("null_mid", "no mid block, one layer per block", block_out_channels=[16, 32, 32], norm_num_groups=8,
             attention_head_dim=[2, 4, 4], layers_per_block=1, mid_block_type=None,
             down_block_types=["CrossAttnDownBlock2D"] * 3, up_block_types=["CrossAttnUpBlock2D"] * 3),
        unet("plain_mid", "UNetMidBlock2D: a mid block without attention, no cross attention anywhere",
             block_out_channels=[16, 24, 32], norm_num_groups=8, layers_per_block=1, mid_block_type="UNetMidBlock2D",
             **PLAIN3),
        unet("plain_blocks", "only DownBlock2D and UpBlock2D around a mid block with attention",
             block_out_channels=[16, 24, 32], norm_num_groups=8, attention_head_dim=2, layers_per_block=2, **PLAIN3),
        unet("layers_list", "layers_per_block as a list", block_out_channels=[16, 24, 32], norm_num_groups=8,
             attention_head_dim=[2, 3, 4], layers_per_block=[1, 2, 3], **CROSS3),
        unet("transformer_2", "two transformer layers in every attention block, linear projection",
             block_out_channels=[16, 32], norm_num_groups=8, attention_head_dim=2, layers_per_block=1,
             transformer_layers_per_block=2, use_linear_projection=True, **CROSS2),
        unet("transformer_list", "transformer layers per level as a list, one sample, one token",
             block_out_channels=[16, 24, 32], norm_num_groups=8, attention_head_dim=[1, 3, 4], layers_per_block=1, n=1,
             tokens=1, transformer_layers_per_block=[1, 2, 3], **CROSS3),
        unet("norm_time", "other group count and eps, shifted and unflipped time embedding, fractional timestep",
             block_out_channels=[16, 32], norm_num_groups=4, norm_eps=1e-3, freq_shift=1, flip_sin_to_cos=False,
             attention_head_dim=4, layers_per_block=1, t=(37.25,), **CROSS2),
        unet("gelu", "act_fn gelu, downsample_padding 0, odd group size", block_out_channels=[24, 36], norm_num_groups=12,
             act_fn="gelu", attention_head_dim=3, layers_per_block=1, downsample_padding=0, **CROSS2),
        unet("mish_odd", "act_fn mish; 7x5 latents, so that upsampling takes its size from the skip", latent=(7, 5),
             block_out_channels=[16, 24, 32], norm_num_groups=8, act_fn="mish", attention_head_dim=2, layers_per_block=1,
             **CROSS3),
        unet("scale_shift", "resnet_time_scale_shift scale_shift, center_input_sample", block_out_channels=[16, 32],
             norm_num_groups=8, resnet_time_scale_shift="scale_shift", center_input_sample=True, attention_head_dim=2,
             layers_per_block=2, **CROSS2),
        unet("inpaint", "nine input channels, four out; three rows with their own timesteps", n=3, in_channels=9,
             out_channels=4, block_out_channels=[16, 32], norm_num_groups=16, attention_head_dim=2, layers_per_block=1,
             t=(999.0, 0.0, 250.5), **CROSS2),
        unet("kernels", "conv_in_kernel 1 and conv_out_kernel 5, mid_block_scale_factor 1.25, no downsampling at all",
             conv_in_kernel=1, conv_out_kernel=5, mid_block_scale_factor=1.25, block_out_channels=[32], norm_num_groups=8,
             attention_head_dim=4, layers_per_block=2, down_block_types=["CrossAttnDownBlock2D"],
             up_block_types=["CrossAttnUpBlock2D"]),
        unet("half", "weights stored as float16", block_out_channels=[16, 32], norm_num_groups=8, attention_head_dim=2,
             layers_per_block=1, dtype="F16", **CROSS2),
        unet("shapes_64", "the shipped model's configuration on 4x4 latents", latent=(4, 4),
             block_out_channels=[48, 96, 160], norm_num_groups=16, attention_head_dim=[2, 3, 5], layers_per_block=1,
             cross_attention_dim=128, tokens=32, **CROSS3),
        unet("only_cross", "only_cross_attention per level: attn1 reads the text as well", block_out_channels=[16, 32],
             norm_num_groups=8, attention_head_dim=4, layers_per_block=1, only_cross_attention=[True, False], **CROSS2),
        unet("attn_blocks", "AttnDownBlock2D and AttnUpBlock2D, where attention_head_dim is a head dimension",
             block_out_channels=[16, 32], norm_num_groups=8, attention_head_dim=4, layers_per_block=1, latent=(5, 7),
             down_block_types=["AttnDownBlock2D", "CrossAttnDownBlock2D"],
             up_block_types=["CrossAttnUpBlock2D", "AttnUpBlock2D"]),
        unet("time_act", "time_embedding_dim, time_embedding_act_fn and timestep_post_act; act_fn relu; plain mid block, scaled",
             block_out_channels=[16, 32], norm_num_groups=8, attention_head_dim=4, layers_per_block=1, time_embedding_dim=40,
             time_embedding_act_fn="gelu", timestep_post_act="mish", act_fn="relu", mid_block_type="UNetMidBlock2D",
             mid_block_scale_factor=2.0, **CROSS2),
        unet("sdxl", "SDXL base in small: pooled text and six sizes, down without attention first, depths 0, 1 and 3",
             block_out_channels=[16, 32, 48], norm_num_groups=8, attention_head_dim=[1, 2, 3], layers_per_block=2,
             transformer_layers_per_block=[0, 1, 3], use_linear_projection=True, addition_embed_type="text_time",
             addition_time_embed_dim=8, projection_class_embeddings_input_dim=64, time_ids=[1024, 1024, 0, 16, 768, 1024],
             **CROSS3),
        unet("refiner", "SDXL refiner in small: four levels, five sizes, a depth of 2 in the middle of the list",
             latent=(16, 8), block_out_channels=[16, 32, 32, 32], norm_num_groups=8, attention_head_dim=[1, 2, 2, 2],
             layers_per_block=1, transformer_layers_per_block=[1, 2, 1, 1], use_linear_projection=True,
             addition_embed_type="text_time", addition_time_embed_dim=6, projection_class_embeddings_input_dim=50,
             time_ids=[512, 512, 0, 0, 6.0], t=(981.0, 1.0), upcast_attention=True,
             down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
             up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]),
        unet("lcm", "LCM: an embedding of the guidance scale is added to the sinusoids", time_cond_proj_dim=20,
             block_out_channels=[16, 32], norm_num_groups=8, attention_head_dim=4, layers_per_block=1, t=(759.0, 759.0),
             **CROSS2),
        unet("ssd_1b", "SSD-1B in small: a depth for every single attention, other ones on the way up, null mid block",
             block_out_channels=[16, 16, 32], norm_num_groups=8, attention_head_dim=[1, 1, 2], layers_per_block=2,
             transformer_layers_per_block=[1, [2, 1], [1, 3]], mid_block_type=None,
             reverse_transformer_layers_per_block=[[2, 1, 3], [1, 0, 2], 1], use_linear_projection=True,
             addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=64,
             time_ids=[1024, 1024, 0, 0, 1024, 1024], **CROSS3),
        unet("class_table", "num_class_embeds and a guidance embedding together", num_class_embeds=7, time_cond_proj_dim=8,
             block_out_channels=[16, 32], norm_num_groups=8, attention_head_dim=4, layers_per_block=1, **CROSS2),
        unet("class_timestep", "class labels embedded as timesteps are, beside the time embedding", n=3,
             class_embed_type="timestep", class_embeddings_concat=True, act_fn="gelu", block_out_channels=[16, 32],
             norm_num_groups=8, attention_head_dim=4, layers_per_block=1, **CROSS2),
        unet("class_projection", "class labels are rows through two layers; scaled and unscaled sizes beside them",
             class_embed_type="projection", projection_class_embeddings_input_dim=40, block_out_channels=[16, 32],
             norm_num_groups=8, attention_head_dim=4, layers_per_block=1, addition_embed_type="text_time",
             addition_time_embed_dim=8, time_ids=[64, 64, 0], freq_shift=1, flip_sin_to_cos=False, **CROSS2),
        unet("class_identity", "class labels are the embedding; tokens are projected first",
             class_embed_type="identity", encoder_hid_dim=40, block_out_channels=[16, 32], norm_num_groups=8,
             attention_head_dim=4, layers_per_block=1, **CROSS2),
        unet("text_pool", "tokens pooled by attention into the time embedding; simple class projection",
             class_embed_type="simple_projection", projection_class_embeddings_input_dim=12, addition_embed_type="text",
             addition_embed_type_num_heads=4, encoder_hid_dim=32, encoder_hid_dim_type="text_proj",
             block_out_channels=[16, 32], norm_num_groups=8, attention_head_dim=4, layers_per_block=1, **CROSS2),
        unet("resnet_blocks", "ResnetDownsampleBlock2D and ResnetUpsampleBlock2D, scaled, time not activated; fourier time",
             block_out_channels=[16, 32, 32], norm_num_groups=8, attention_head_dim=4, layers_per_block=1,
             resnet_out_scale_factor=1.5, resnet_skip_time_act=True, time_embedding_type="fourier", t=(0.25, 1.5),
             resnet_time_scale_shift="scale_shift",
             down_block_types=["ResnetDownsampleBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
             up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "ResnetUpsampleBlock2D"]),
        unet("long_text", "77 tokens, text wider than any level, wide and flat latents", latent=(2, 24), n=1, tokens=77,
             cross_attention_dim=96, block_out_channels=[16, 32], norm_num_groups=8, attention_head_dim=2,
             layers_per_block=1, **CROSS2),
    ]


# ---- UNet2DModel ----

def unet_plain(name, about, size=(8, 8), n=2, t=(501.0,), drop=(), **config):
    config = {"sample_size": size[0], **config}

    def run(model, store):
        sample = noise(1, n, model.config.in_channels, *size)
        timestep = torch.tensor(t, dtype=torch.float32)
        given = unet_conditions({**model.config, **config}, n)
        for key, value in (("sample", sample), ("timestep", timestep), *given.items()):
            store.input(key, value)
        step = timestep.double() if len(t) > 1 else timestep.double()[0]
        store.output("sample", run_unet(model, sample, step, None, given))
    return {"name": "unet_plain/" + name, "about": about, "component": "unet", "class": UNet2DModel, "run": run,
            "make": lambda: UNet2DModel(**config), "drop": drop}


ATTN3 = {"down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
         "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]}


def unets_plain():
    return [
        unet_plain("ddpm", "as the published DDPM for CIFAR-10: one head, shifted unflipped time, padding 0, eps 1e-6",
                   size=(16, 16), in_channels=3, out_channels=3, block_out_channels=[16, 32, 32], layers_per_block=2,
                   norm_num_groups=8, norm_eps=1e-6, freq_shift=1, flip_sin_to_cos=False, downsample_padding=0,
                   attention_head_dim=None, **ATTN3),
        unet_plain("heads", "attention_head_dim is a head dimension here; padding 1, one timestep per row", in_channels=3,
                   out_channels=3, block_out_channels=[16, 32, 48], layers_per_block=1, norm_num_groups=16,
                   attention_head_dim=8, t=(999.0, 3.0), **ATTN3),
        unet_plain("scale_shift", "scale_shift, centred input, act gelu, four channels", in_channels=4, out_channels=4,
                   block_out_channels=[16, 32], layers_per_block=1, norm_num_groups=8, attention_head_dim=16,
                   resnet_time_scale_shift="scale_shift", center_input_sample=True, act_fn="gelu",
                   down_block_types=["AttnDownBlock2D", "AttnDownBlock2D"], up_block_types=["AttnUpBlock2D"] * 2),
        unet_plain("resnet_samplers", "residual blocks that halve and double; groups of the middle attention, scaled",
                   in_channels=3, out_channels=3, block_out_channels=[16, 32], layers_per_block=1, norm_num_groups=8,
                   attention_head_dim=8, downsample_type="resnet", upsample_type="resnet", mid_block_scale_factor=1.5,
                   resnet_time_scale_shift="scale_shift", attn_norm_num_groups=4, size=(8, 12),
                   down_block_types=["AttnDownBlock2D", "DownBlock2D"], up_block_types=["AttnUpBlock2D", "UpBlock2D"]),
        unet_plain("classes", "as class-conditional ADM: a class table, scale_shift, residual samplers in all blocks", n=3,
                   in_channels=3, out_channels=3, block_out_channels=[16, 32], layers_per_block=1, norm_num_groups=8,
                   attention_head_dim=8, num_class_embeds=11, resnet_time_scale_shift="scale_shift",
                   downsample_type="resnet", upsample_type="resnet", t=(40.0, 3.0, 40.0),
                   down_block_types=["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
                   up_block_types=["AttnUpBlock2D", "ResnetUpsampleBlock2D"]),
        unet_plain("fourier", "random frequencies of the noise level's logarithm, output divided by it", in_channels=3,
                   out_channels=3, block_out_channels=[16, 32], layers_per_block=1, norm_num_groups=8,
                   attention_head_dim=8, time_embedding_type="fourier", num_class_embeds=5, t=(12.5, 0.75),
                   down_block_types=["DownBlock2D", "AttnDownBlock2D"], up_block_types=["AttnUpBlock2D", "UpBlock2D"]),
        unet_plain("plain", "no attention at all, one channel, wide sample", size=(4, 24), n=1, in_channels=1,
                   out_channels=1, block_out_channels=[16, 24, 24], layers_per_block=1, norm_num_groups=8,
                   add_attention=False, down_block_types=["DownBlock2D"] * 3, up_block_types=["UpBlock2D"] * 3),
    ]


# ---- AutoencoderKL ----

def vae(name, about, image=(32, 32), n=2, drop=(), keep=(), dtype="F32", rename=None, **config):
    levels = len(config["block_out_channels"])
    config = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels,
              "sample_size": image[0], **config}

    def run(model, store):
        sample = noise(1, n, model.config.in_channels, *image)
        store.input("sample", sample)
        moments = model.encode(cast(sample)).latent_dist.parameters
        store.output("moments", moments)
        z = noise(2, n, model.config.latent_channels, *moments.shape[2:])
        store.input("z", z)
        store.output("sample", model.decode(cast(z)).sample)
    case = {"name": "vae/" + name, "about": about, "component": "vae", "class": AutoencoderKL, "run": run,
            "make": lambda: AutoencoderKL(**config), "drop": drop, "keep": keep, "dtype": dtype}
    if rename:
        case["rename"] = rename
    return case


def old_attention(name):
    """Names of the mid block's attention in files saved before 2023."""
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
    return name


SD1_VAE_KEYS = ("in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels",
                "layers_per_block", "act_fn", "latent_channels", "norm_num_groups", "sample_size")


def vaes():
    return [
        vae("sd1", "SD1.x in small: four levels, two layers, old attention names, only the oldest config keys",
            block_out_channels=[8, 16, 16, 16], layers_per_block=2, norm_num_groups=4, keep=SD1_VAE_KEYS,
            rename=old_attention),
        vae("shapes_64", "the shipped model's configuration", image=(32, 32), block_out_channels=[16, 32, 64],
            layers_per_block=1, norm_num_groups=4, scaling_factor=0.456),
        vae("no_quant", "no quant convolutions, sixteen latent channels, shift factor", block_out_channels=[8, 16],
            layers_per_block=1, norm_num_groups=4, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False,
            scaling_factor=0.3611, shift_factor=0.1159, image=(16, 24)),
        vae("no_attention", "mid block without attention, sides that are not powers of two", mid_block_add_attention=False,
            block_out_channels=[8, 16, 24], layers_per_block=1, norm_num_groups=8, image=(24, 20), n=1),
        vae("half", "weights stored as float16, one level", block_out_channels=[16], layers_per_block=1, norm_num_groups=4,
            image=(12, 8), dtype="F16"),
    ]


# ---- AutoencoderTiny ----

def tiny(name, about, image=(32, 32), n=2, drop=(), **config):
    def run(model, store):
        sample = noise(1, n, model.config.in_channels, *image) * 0.5
        store.input("sample", sample)
        latents = model.encode(cast(sample)).latents
        store.output("latents", latents)
        z = noise(2, n, model.config.latent_channels, *latents.shape[2:]) * 2
        store.input("z", z)
        store.output("sample", model.decode(cast(z)).sample)
    return {"name": "tiny/" + name, "about": about, "component": "vae", "class": AutoencoderTiny, "run": run,
            "make": lambda: AutoencoderTiny(**config), "drop": drop}


def tinies():
    return [
        tiny("taesd", "as published, narrower", encoder_block_out_channels=[16] * 4, decoder_block_out_channels=[16] * 4),
        tiny("taef1", "sixteen latent channels", latent_channels=16, encoder_block_out_channels=[12] * 4,
             decoder_block_out_channels=[12] * 4, image=(16, 24)),
        tiny("three", "three levels, other block counts", encoder_block_out_channels=[8] * 3,
             decoder_block_out_channels=[16] * 3, num_encoder_blocks=[1, 2, 1], num_decoder_blocks=[2, 1, 1],
             image=(16, 8), n=1),
        tiny("silu", "act_fn silu, only the keys that differ from the defaults", act_fn="silu",
             encoder_block_out_channels=[8] * 4, decoder_block_out_channels=[8] * 4, image=(24, 16),
             drop=("scaling_factor", "latent_magnitude", "latent_shift", "upsampling_scaling_factor", "force_upcast",
                   "shift_factor", "num_encoder_blocks", "num_decoder_blocks", "in_channels", "out_channels")),
    ]


# ---- CLIP ----

def prompt_ids(vocab, bos, eos, pad, length, n, seed, last_eos=False):
    """Rows as a tokenizer makes them: bos, words, eos, padding; the first row fills the context."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((n, length), pad, dtype=torch.int64)
    for row in range(n):
        words = max(length - 2 - row * 3, 0)
        ids[row, 0] = bos
        ids[row, 1:1 + words] = torch.randint(3, min(bos, eos) if min(bos, eos) > 3 else vocab - 3, (words,),
                                              generator=generator)
        ids[row, 1 + words] = eos
    return ids


def clip_text(name, about, n=2, length=None, prefix=True, extra=None, drop=(), dtype="F32", eos_in_ids=None,
              projection=False, **config):
    config = {"vocab_size": 99, "bos_token_id": 97, "eos_token_id": 98, "pad_token_id": 98, "projection_dim": 16, **config}
    length = length or config.get("max_position_embeddings", 77)

    def run(model, store):
        eos = eos_in_ids or config["eos_token_id"]
        ids = prompt_ids(config["vocab_size"], config["bos_token_id"], eos, config["pad_token_id"], length, n, 1)
        store.input("input_ids", ids)
        out = model(input_ids=ids)
        store.output("last_hidden_state", out.last_hidden_state)
        store.output("text_embeds" if projection else "pooler_output", out.text_embeds if projection else out.pooler_output)
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    case = {"name": "clip_text/" + name, "about": about, "component": "text_encoder", "class": kind, "run": run,
            "make": lambda: kind(CLIPTextConfig(**config)), "tap_prefix": "" if projection else "text_model.", "drop": drop,
            "dtype": dtype, "extra": extra or {}}
    if prefix and not projection:  # the names in almost every published file; newer library versions save them without the prefix
        case["rename"] = lambda n: "text_model." + n
    return case


def clip_texts():
    return [
        clip_text("sd1", "as in SD1.x: quick_gelu, eos_token_id 2 (so pooling takes the largest id), position_ids in the file",
                  hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
                  max_position_embeddings=20, eos_token_id=2, bos_token_id=0, eos_in_ids=98, pad_token_id=1,
                  extra={"text_model.embeddings.position_ids": torch.arange(20)[None]}, drop=("dtype",)),
        clip_text("sd2", "as in SD2.x: gelu, padding id 0, shorter input than the context", hidden_size=48,
                  intermediate_size=96, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=77, length=29,
                  hidden_act="gelu", pad_token_id=0, eos_token_id=98),
        clip_text("eos_first", "eos id rule: padding equals eos, the first one counts; float16 weights", hidden_size=24,
                  intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16, n=3,
                  dtype="F16"),
        clip_text("no_prefix", "names without text_model., as newer library versions save them; other eps, one head",
                  hidden_size=16, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, layer_norm_eps=1e-3,
                  max_position_embeddings=8, prefix=False),
        clip_text("eos_lower", "eos id rule where eos is not the largest id", hidden_size=20, intermediate_size=24,
                  num_hidden_layers=2, num_attention_heads=5, max_position_embeddings=12, eos_token_id=50, bos_token_id=60,
                  pad_token_id=70, n=3),
        clip_text("bigg", "as the second encoder of SDXL: a projection, gelu, padding id 0, eos_token_id 2", projection=True,
                  hidden_size=40, intermediate_size=80, num_hidden_layers=4, num_attention_heads=4, hidden_act="gelu",
                  max_position_embeddings=20, eos_token_id=2, bos_token_id=0, eos_in_ids=98, pad_token_id=0,
                  projection_dim=28, n=3, dtype="F16"),
    ]


def clip(name, about, patch, image, n=2, n_text=3, projection=16, text=None, vision=None, drop=(), dtype="F32",
         explicit=True):
    text = {"vocab_size": 99, "bos_token_id": 97, "eos_token_id": 98, "pad_token_id": 98, "hidden_size": 24,
            "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 12,
            "projection_dim": projection, **(text or {})}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": image, "patch_size": patch, "projection_dim": projection, **(vision or {})}

    def run(model, store):
        eos = text["eos_token_id"] if text["eos_token_id"] != 2 else 98
        ids = prompt_ids(99, text["bos_token_id"], eos, text["pad_token_id"], text["max_position_embeddings"], n_text, 1)
        pixels = noise(2, n, 3, image, image)
        store.input("input_ids", ids)
        store.input("pixel_values", pixels)
        out = model(input_ids=ids, pixel_values=cast(pixels))
        store.output("image_embeds", out.image_embeds)
        store.output("text_embeds", out.text_embeds)
        store.output("logits_per_image", out.logits_per_image)
        store.tap("vision_model.pooler_output", out.vision_model_output.pooler_output, 4096)
        store.tap("text_model.pooler_output", out.text_model_output.pooler_output, 4096)
    return {"name": "clip/" + name, "about": about, "component": "clip", "class": CLIPModel, "run": run, "drop": drop,
            "make": lambda: CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)),
            "dtype": dtype}


def clips():
    return [
        clip("patch_8", "the shipped judge in small: 32x32 pictures, patch 8", 8, 32),
        clip("patch_14", "patch 14 as in ViT-L/14, gelu, eos_token_id 2", 14, 42, projection=20,
             text={"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1, "hidden_act": "gelu"},
             vision={"hidden_act": "gelu", "hidden_size": 40, "num_attention_heads": 2}),
        clip("patch_16", "patch 16, projection wider than both towers, one picture", 16, 48, n=1, projection=72,
             vision={"num_hidden_layers": 3}),
        clip("patch_32", "patch 32: four patches; float16 weights, other eps", 32, 64, n=2, n_text=1, dtype="F16",
             vision={"layer_norm_eps": 1e-3, "num_attention_heads": 8}, text={"layer_norm_eps": 1e-3}),
    ]


def networks():
    return unets() + unets_plain() + vaes() + tinies() + clip_texts() + clips()
