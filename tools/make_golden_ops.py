#!/usr/bin/env python3
"""Golden values for the ops from PyTorch (in float64), diffusers and Pillow -> tests/golden/ops.safetensors.

usage: tools/make_golden_ops.py [OUT]

Layouts are ours: activations NHWC, weights as in checkpoints. tests/ops/ref_test.c names the same entries.
"""
import sys

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from PIL import Image
from safetensors.torch import save_file

torch.manual_seed(0)
golden = {}


def put(name, value):
    golden[name] = value.detach().to(torch.float32 if value.is_floating_point() else value.dtype).contiguous()


def random(name, *shape, mean=0.0, scale=1.0):
    """Rounded to float32, so that the reference and we start from the same numbers; computed with in float64."""
    value = (mean + scale * torch.randn(*shape, dtype=torch.float64)).to(torch.float32)
    put(name, value)
    return value.to(torch.float64)


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def linear():
    acts = {"none": lambda x: x, "silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
            "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x), "relu": F.relu, "tanh": torch.tanh, "mish": F.mish}
    x, w, b = random("linear.x", 2, 3, 5), random("linear.w", 8, 5), random("linear.b", 8)
    r = random("linear.r", 2, 3, 8)
    for name, act in acts.items():
        put("linear." + name, act(F.linear(x, w, b)) + r)
    a, g = F.linear(x, w, b).chunk(2, dim=-1)
    put("linear.geglu", a * F.gelu(g))
    put("matmul_t", torch.matmul(x, r[..., :5].transpose(-1, -2)) * 0.25)


def conv():
    x, w, b = random("conv.x", 3, 7, 6, 4), random("conv.w", 5, 4, 3, 3), random("conv.b", 5)
    row_bias = random("conv.row_bias", 2, 5)
    padded = F.conv2d(nchw(x), w, b, padding=1)
    r = random("conv.r", 3, 7, 6, 5)
    put("conv.same", nhwc(padded))
    put("conv.full", F.silu(nhwc(padded) + row_bias[[1, 0, 1]][:, None, None, :]) + r)
    put("conv.stride2", nhwc(F.conv2d(F.pad(nchw(x), (0, 1, 0, 1)), w, b, stride=2)))
    put("conv.uneven", nhwc(F.conv2d(F.pad(nchw(x), (0, 3, 2, 1)), w, None)))
    w1 = random("conv.w1", 6, 4, 1, 1)
    put("conv.one", nhwc(F.conv2d(nchw(x), w1)))
    wp = random("conv.patch.w", 6, 4, 3, 3)
    put("conv.patch", nhwc(F.conv2d(nchw(x), wp, stride=3)))


def attention():
    q, k, v = random("attention.q", 3, 5, 2, 4), random("attention.k", 3, 7, 2, 4), random("attention.v", 3, 7, 2, 4)

    def sdpa(q, k, v, **kw):
        return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **kw).transpose(1, 2)

    put("attention.plain", sdpa(q, k, v))
    put("attention.scale", sdpa(q, k, v, scale=0.3))
    put("attention.rows", sdpa(q, k[[2, 0, 2]], v[[2, 0, 2]]))
    put("attention.causal", sdpa(q, k[:, :5], v[:, :5], is_causal=True))


def norms():
    x, g, b = random("norm.x", 2, 3, 3, 8, mean=5.0), random("norm.g", 8), random("norm.b", 8)
    put("norm.group", nhwc(F.group_norm(nchw(x), 4, g, b, 1e-5)))
    put("norm.group_silu", F.silu(nhwc(F.group_norm(nchw(x), 2, g, b, 1e-3))))
    put("norm.layer", F.layer_norm(x, (8,), g, b, 1e-6))
    put("norm.layer_plain", F.layer_norm(x, (8,), None, None, 1e-6))
    put("norm.l2", F.normalize(x, dim=-1))
    put("norm.affine", x * g + b)
    rows = random("norm.rows", 2, 16)
    scale, shift = rows[[1, 0]].chunk(2, dim=-1)
    put("norm.modulate", x * (1 + scale[:, None, None]) + shift[:, None, None])
    flat = x.flatten(1)
    put("norm.row_stats", torch.stack([flat.mean(1), flat.std(1)], dim=1))
    put("norm.clamp", x.clamp(4.5, 5.5))
    put("norm.lincomb", 0.3 * x - 1.7 * x.flip(0))


def embeddings():
    t = torch.tensor([999.0, 500.5, 1.0, 0.0])
    put("time.sd", get_timestep_embedding(t, 32, flip_sin_to_cos=True, downscale_freq_shift=0))
    put("time.ddpm", get_timestep_embedding(t, 33, flip_sin_to_cos=False, downscale_freq_shift=1))
    put("time.scaled", get_timestep_embedding(t, 16, flip_sin_to_cos=True, downscale_freq_shift=0, scale=2.5, max_period=2000))
    table, position = random("embedding.table", 9, 4), random("embedding.position", 6, 4)
    ids = torch.tensor([[0, 8, 3, 3, 1], [7, 2, 0, 5, 4]], dtype=torch.int32)
    put("embedding.ids", ids)
    put("embedding.out", F.embedding(ids.long(), table) + position[:5])


def resample():
    x = random("resample.x", 1, 13, 10, 2)
    filters = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
    for name, kind in filters.items():
        for h, w in ((5, 4), (20, 17), (13, 3)):
            planes = [np.asarray(Image.fromarray(x[0, :, :, c].float().numpy(), mode="F").resize((w, h), kind)) for c in range(2)]
            put("resample.pillow.%s.%dx%d" % (name, h, w), torch.from_numpy(np.stack(planes, -1))[None])
    for name in ("bilinear", "bicubic"):
        for h, w in ((5, 4), (20, 17)):
            y = F.interpolate(nchw(x), size=(h, w), mode=name, antialias=True, align_corners=False)
            put("resample.torch.%s.%dx%d" % (name, h, w), nhwc(y))
    put("upsample.26x20", nhwc(F.interpolate(nchw(x), size=(26, 20), mode="nearest")))
    put("upsample.7x23", nhwc(F.interpolate(nchw(x), size=(7, 23), mode="nearest")))
    put("avg_pool2", nhwc(F.avg_pool2d(nchw(x), 2)))


def conversions():
    """Bit patterns of all kinds: around every f16 boundary, subnormals, ties, infinities; NaN apart (payloads are free)."""
    bits = torch.randint(-2**31, 2**31 - 1, (1500,), dtype=torch.int64)
    exponents = torch.arange(127 - 26, 127 + 18, dtype=torch.int64)[:, None] << 23
    ties = torch.tensor([0, 1, 0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x3001, 0x7fff, 0x8000, 0x8001, 0x18000, 0x7fffff])[None, :]
    bits = torch.cat([bits, (exponents | ties).flatten(), torch.tensor([0, -2**31, 0x7f800000, -0x800000])])
    x = bits.to(torch.int32).view(torch.float32)
    x = x[~x.isnan()]
    golden["convert.f32"] = x
    golden["convert.bf16"] = x.to(torch.bfloat16)
    golden["convert.f16"] = x.to(torch.float16)


for part in (linear, conv, attention, norms, embeddings, resample, conversions):
    part()
save_file(golden, sys.argv[1] if len(sys.argv) > 1 else "tests/golden/ops.safetensors")
