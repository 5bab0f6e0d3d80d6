#!/usr/bin/env python3
"""Fits weights/jpeg-size: a small network whose sum over 8x8 blocks is the size of a picture as a JPEG (quality 95, 4:2:0, standard Huffman
tables), so that the size has a derivative.

    tools/train_jpeg_size.py --emoji DIR --out weights/jpeg-size [--digits FILE.gz] [--samples DIR]

    luma     patches [64, 3] of 8x8 pixels          -> dct.y         (a fixed linear layer: YCbCr, DCT, divided by the quantiser's steps)
    chroma   patches of the picture halved by means -> dct.b, dct.r  (the same)
    each     c - left neighbour's c for the constant part (fixed), +-c -> gelu -> linear, tanh -> linear, silu -> linear: bits of the block

gelu(c) + gelu(-c) = c erf(c / sqrt 2) is a smooth |c| that is flat around 0, where the quantiser rounds to nothing. Targets are the bits that
libjpeg spends on a block, counted from its Huffman tables; real files are what the model card's numbers are measured on.

Fitted to emoji (Noto, OFL; the last fifth is held out) and to pictures made here: leaves of all sizes over each other, flat or textured, shaded and
blurred as photographs are; noise of all spectra; ramps; strokes. Kinds that are held out altogether: landscapes of fractal hills under light and
haze, digits (MNIST, --digits: the IDX file of pictures), and what the shipped model draws (--samples)."""
import argparse
import glob
import gzip
import io
import json
import math
import os

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

QUALITY, SCALES, HIDDEN = 95, (1.0, 0.25, 0.04), 32


# ---- what libjpeg does ----

def jpeg_bytes(rgb):
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=QUALITY)
    return len(out.getvalue())


def jpeg_tables():
    """Quantiser's steps in natural order and Huffman code lengths, read from a file that libjpeg wrote."""
    out = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(out, "JPEG", quality=QUALITY)
    data, at, lengths = out.getvalue(), 2, {}
    while data[at + 1] != 0xDA:
        n = data[at + 2] * 256 + data[at + 3]
        if data[at + 1] == 0xC4:
            p = at + 4
            while p < at + 2 + n:
                kind, counts = data[p], data[p + 1:p + 17]
                p += 17
                table = np.zeros(256, np.int64)
                for size, count in enumerate(counts, 1):
                    for _ in range(count):
                        table[data[p]] = size
                        p += 1
                lengths[kind] = table
        at += 2 + n
    picture = Image.open(io.BytesIO(out.getvalue()))
    steps = [np.array(picture.quantization[i], np.float64) for i in range(2)]
    return steps, lengths


def zigzag():
    order = sorted(range(64), key=lambda k: (k // 8 + k % 8, k // 8 if (k // 8 + k % 8) % 2 else k % 8))
    return np.array(order)


def dct_matrix():
    """[64, 64]: natural order of frequencies x pixels of a block."""
    c = np.array([[math.sqrt((1 if u == 0 else 2) / 8) * math.cos((2 * x + 1) * u * math.pi / 16) for x in range(8)] for u in range(8)])
    return np.kron(c, c)


STEPS, LENGTHS = jpeg_tables()
ZIGZAG, DCT = zigzag(), dct_matrix()
YCC = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])


def blocks_of(plane):
    h, w = plane.shape
    return plane.reshape(h // 8, 8, w // 8, 8).transpose(0, 2, 1, 3).reshape(h // 8, w // 8, 64)


def planes_of(rgb, rounded):
    """Y, Cb, Cr of a float picture in 0 ... 255 whose sides are multiples of 16, shifted to be around 0."""
    ycc = rgb.astype(np.float64) @ YCC.T
    if rounded:
        ycc = np.floor(ycc + 0.5)
    chroma = ycc[..., 1:].reshape(rgb.shape[0] // 2, 2, rgb.shape[1] // 2, 2, 2).mean((1, 3))
    if rounded:
        chroma = np.floor(chroma + 0.5)
    return [ycc[..., 0] - 128, chroma[..., 0], chroma[..., 1]]


def coefficients(rgb, rounded):
    out = []
    for i, plane in enumerate(planes_of(rgb, rounded)):
        out.append(blocks_of(plane) @ DCT.T / STEPS[min(i, 1)])
    return out


def size_of(v):
    return np.where(v == 0, 0, np.floor(np.log2(np.maximum(np.abs(v), 1))) + 1).astype(np.int64)


def bits_of(c, chroma):
    """Bits of each block [h, w, 64] of quantised coefficients; the constant part by its left neighbour."""
    q = np.rint(c).astype(np.int64)
    dc, ac = LENGTHS[0x00 + chroma], LENGTHS[0x10 + chroma]
    left = np.concatenate([np.zeros_like(q[:, :1, 0]), q[:, :-1, 0]], 1)
    s = size_of(q[..., 0] - left)
    bits, run = dc[s] + s, np.zeros(q.shape[:2], np.int64)
    for k in ZIGZAG[1:]:
        v = q[..., k]
        s, hit = size_of(v), v != 0
        bits = bits + np.where(hit, (run // 16) * ac[0xF0] + ac[np.minimum((run % 16) * 16 + s, 255)] + s, 0)
        run = np.where(hit, 0, run + 1)
    return bits + np.where(run > 0, ac[0x00], 0)


# ---- pictures ----

def leaves(rng, side):
    """Discs and boxes of all sizes over each other: edges and areas as in photographs (Lee, Mumford and Huang 2001)."""
    picture = Image.new("RGB", (side * 2, side * 2), tuple(int(v) for v in rng.integers(0, 256, 3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(5, 300))):
        r = min(2 * side, 3 / max(rng.random(), 1e-3) ** 0.7)
        x, y = rng.random(2) * 2 * side
        base = rng.integers(0, 256, 3) if rng.random() < 0.7 else np.full(3, rng.integers(0, 256))
        shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
        shape([x - r, y - r * rng.uniform(0.4, 1), x + r, y + r * rng.uniform(0.4, 1)], fill=tuple(int(v) for v in base))
    return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS), np.float64)


def spectrum(rng, side):
    """Noise whose spectrum falls as 1/f^a, colours correlated."""
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) + 1 / side
    mix = np.eye(3) * rng.uniform(0, 1) + rng.uniform(0.2, 1)
    planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / f ** rng.uniform(0, 2), (side, side)) for _ in range(3)]
    x = np.stack([p / (p.std() + 1e-9) for p in planes], -1) @ mix
    return x / x.std() * 10 ** rng.uniform(0, 1.9) + rng.uniform(40, 215, 3)


def ramp(rng, side):
    y, x = np.mgrid[:side, :side] / side
    a = rng.uniform(0, 255, (3, 3))
    return a[0] + x[..., None] * (a[1] - a[0]) * rng.random() + y[..., None] * (a[2] - a[0]) * rng.random()


def strokes(rng, side):
    picture = Image.new("RGB", (side, side), tuple(int(v) for v in rng.integers(0, 256, 3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(1, 40))):
        p = rng.uniform(0, side, 4)
        draw.line(list(p), fill=tuple(int(v) for v in rng.integers(0, 256, 3)), width=int(rng.integers(1, 5)))
    return np.asarray(picture, np.float64)


def blurred(x, sigma):
    """By a Gaussian, around the edges."""
    f = np.fft.fftfreq(len(x))[:, None] ** 2 + np.fft.rfftfreq(x.shape[1])[None] ** 2
    filter = np.exp(-2 * (math.pi * sigma) ** 2 * f)
    return np.stack([np.fft.irfft2(np.fft.rfft2(x[..., i]) * filter, x.shape[:2]) for i in range(3)], -1)


def natural(rng, side):
    """Textured, shaded leaves out of focus."""
    x, grain = leaves(rng, side), spectrum(rng, side)
    x = x + (grain - grain.mean()) / (grain.std() + 1e-9) * rng.uniform(0, 25) * (leaves(rng, side)[..., :1] / 255) ** 2
    light = ramp(rng, side)
    return blurred(x * (1 + rng.uniform(0, 1) * (light / 255 - 0.5)), 10 ** rng.uniform(-1, 0.5)) + rng.normal(size=x.shape) * rng.uniform(0, 4)


def landscape(rng, side):
    """Fractal hills, ridge behind ridge, under light and haze."""
    y, x = np.mgrid[:side, :side] / side
    sky, haze = rng.uniform(90, 255, 3), rng.uniform(120, 230, 3)
    out = sky + (haze - sky) * y[..., None]
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) + 0.5 / side
    for layer in range(4):
        height = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / f ** rng.uniform(1.2, 1.8), (side, side))
        height /= height.std()
        slope = np.gradient(height)
        light = np.clip(0.6 + rng.uniform(1, 4) * (slope[0] * rng.normal() + slope[1] * rng.normal()), 0, 1.4)
        ground = light[..., None] * rng.uniform(20, 200, 3) * (0.3 + 0.7 * (layer + 1) / 4) + haze * 0.6 * (3 - layer) / 3
        ridge = 0.3 + 0.18 * layer + 0.06 * height[0]
        out = np.where((y > ridge[None])[..., None], ground, out)
    return out


def digits(path, n):
    """32x32, as they are."""
    raw = np.frombuffer(gzip.open(path).read(), np.uint8, offset=16).reshape(-1, 28, 28)[:n].astype(np.float64)
    return [np.repeat(np.pad(x, 2)[..., None], 3, 2) for x in raw]


class Pictures:
    def __init__(self, emoji, held_out):
        names = sorted(glob.glob(os.path.join(emoji, "*.png")))
        cut = len(names) * 4 // 5
        self.emoji = names[cut:] if held_out else names[:cut]

    def drawn(self, rng, side):
        picture = Image.new("RGBA", (side, side), tuple(int(v) for v in rng.integers(0, 256, 3)) + (255,))
        for _ in range(int(rng.integers(1, 4))):
            one = Image.open(self.emoji[int(rng.integers(len(self.emoji)))]).convert("RGBA")
            n = int(side * rng.uniform(0.3, 1.2))
            one = one.resize((n, n), Image.Resampling.BICUBIC)
            picture.paste(one, tuple(int(v) for v in rng.integers(-n // 3, side - n // 2, 2)), one)
        return np.asarray(picture.convert("RGB"), np.float64)

    def any(self, rng, side):
        kind = rng.choice([natural, self.drawn, leaves, spectrum, ramp, strokes], p=[0.3, 0.2, 0.2, 0.15, 0.05, 0.1])
        x = kind(rng, side)
        if rng.random() < 0.3:  # contrast
            x = (x - x.mean()) * rng.uniform(0.05, 1.5) + x.mean()
        if rng.random() < 0.35:  # noise, as decoders leave it
            x = x + rng.normal(size=x.shape if rng.random() < 0.5 else x.shape[:2] + (1,)) * 10 ** rng.uniform(-0.5, 1.5)
        return np.clip(x, 0, 255)


# ---- the network ----

class Half(torch.nn.Module):
    """Bits of blocks from coefficients [n, 64] and their left neighbours' constant part [n]."""

    def __init__(self):
        super().__init__()
        self.spread = torch.nn.Linear(128, 64 * len(SCALES))
        self.mix = torch.nn.Linear(64 * len(SCALES), HIDDEN)
        self.out = torch.nn.Linear(HIDDEN, 1)
        with torch.no_grad():
            w = torch.cat([torch.eye(64) * s for s in SCALES])
            self.spread.weight.copy_(torch.cat([w, w], 1))
            self.spread.bias.zero_()

    def forward(self, c):
        a = torch.nn.functional.gelu(torch.cat([c, -c], -1))
        h = torch.nn.functional.silu(self.mix(torch.tanh(self.spread(a))))
        return self.out(h)[..., 0]


def network_input(c):
    """The constant part less its left neighbour's, [h, w, 64] -> [h * w, 64]."""
    c = c.clone() if isinstance(c, torch.Tensor) else torch.tensor(c, dtype=torch.float32)
    left = torch.nn.functional.pad(c[..., :-1, 0], (1, 0))
    return torch.cat([(c[..., 0] - left)[..., None], c[..., 1:]], -1)


class Size(torch.nn.Module):
    """Bytes of pictures [3, h, w] in 0 ... 1, sides multiples of 16."""

    def __init__(self, luma, chroma, constant):
        super().__init__()
        self.luma, self.chroma, self.constant = luma, chroma, constant
        for i, name in enumerate(("dct_y", "dct_b", "dct_r")):
            rows = (DCT / STEPS[min(i, 1)][:, None])[:, :, None] * YCC[i] * 255  # [64, pixel, channel]
            self.register_buffer(name, torch.tensor(rows, dtype=torch.float32))
        self.register_buffer("shift", torch.tensor((DCT / STEPS[0][:, None]).sum(1) * -128, dtype=torch.float32))

    @staticmethod
    def patches(x):
        c, h, w = x.shape
        return x.reshape(c, h // 8, 8, w // 8, 8).permute(1, 3, 2, 4, 0).reshape(h // 8, w // 8, 64, c)

    def forward(self, x):
        big, small = self.patches(x), self.patches(torch.nn.functional.avg_pool2d(x, 2))
        y = torch.einsum("hwpc,kpc->hwk", big, self.dct_y) + self.shift
        bits = self.luma(network_input(y)).sum()
        for table in (self.dct_b, self.dct_r):
            bits = bits + self.chroma(network_input(torch.einsum("hwpc,kpc->hwk", small, table))).sum()
        return self.constant + bits / 8


# ---- fitting ----

def gather(pictures):
    """Coefficients and bits of luma and of chroma blocks."""
    sets = ([[], []], [[], []])
    for x in pictures:
        exact, seen = coefficients(np.rint(x), True), coefficients(x, False)
        for i in range(3):
            sets[min(i, 1)][0].append(network_input(seen[i]).reshape(-1, 64).to(torch.float32))
            sets[min(i, 1)][1].append(torch.tensor(bits_of(exact[i], min(i, 1)).reshape(-1), dtype=torch.float32))
    return [(torch.cat(a), torch.cat(b)) for a, b in sets]


def fit(net, c, bits, steps, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        net.out.bias.fill_(float(bits.mean()))
    opt = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-4)
    plan = torch.optim.lr_scheduler.OneCycleLR(opt, 3e-3, steps, pct_start=0.05)
    weight = 1 / (8 + bits)
    for step in range(steps):
        at = torch.randint(len(bits), (2048,))
        off = net(c[at]) - bits[at]
        loss = (off * off * weight[at]).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        plan.step()
        if step % 1000 == 0 or step == steps - 1:
            print(f"  step {step:6d} loss {loss.item():.3f} mean error {off.abs().mean().item():.2f} of {bits.mean().item():.1f} bits", flush=True)


def climb(size, x, direction, steps, rate):
    """Steps along the gradient g, each pixel by g / (|g| + rms g) and less and less; the pictures on the way."""
    x, way = torch.tensor(x.transpose(2, 0, 1) / 255, dtype=torch.float32), []
    for i in range(steps):
        x.requires_grad_(True)
        g, = torch.autograd.grad(size(x), x)
        with torch.no_grad():
            x = (x + direction * rate * (1 - i / steps) * g / (g.abs() + g.norm() / math.sqrt(g.numel()) + 1e-12)).clamp(0, 1)
        way.append(x.numpy().transpose(1, 2, 0) * 255.0)
    return way


def measure(size, pictures):
    true = np.array([jpeg_bytes(np.rint(x).astype(np.uint8)) for x in pictures], float)
    with torch.no_grad():
        guess = np.array([size(torch.tensor(np.rint(x).transpose(2, 0, 1) / 255, dtype=torch.float32)).item() for x in pictures])
    rank = lambda v: np.argsort(np.argsort(v)).astype(float)
    return {"pictures": len(true), "kB": [round(float(true.min()) / 1000, 2), round(float(true.max()) / 1000, 2)], "pearson": round(float(np.corrcoef(true, guess)[0, 1]), 4),
            "spearman": round(float(np.corrcoef(rank(true), rank(guess))[0, 1]), 4), "median_error": round(float(np.median(np.abs(guess / true - 1))), 4)}


def usefulness(size, pictures, steps=40, rate=4 / 255):
    """True sizes after `steps` steps of at most `rate` down and up the gradient, relative to before."""
    change = {-1: [], 1: []}
    for x in pictures:
        before = jpeg_bytes(np.rint(x).astype(np.uint8))
        for direction in change:
            change[direction].append(jpeg_bytes(np.rint(climb(size, x, direction, steps, rate)[-1]).astype(np.uint8)) / before)
    return {"down": round(float(np.median(change[-1])), 3), "down_always": bool(max(change[-1]) < 1), "up": round(float(np.median(change[1])), 3)}


def save(size, folder, report):
    os.makedirs(folder, exist_ok=True)
    tensors = {"dct.y.weight": size.dct_y.reshape(64, 192), "dct.y.bias": size.shift,
               "dct.b.weight": size.dct_b.reshape(64, 192), "dct.r.weight": size.dct_r.reshape(64, 192)}
    tap = torch.zeros(128, 64, 1, 2)  # the left neighbour, the block itself
    for k in range(64):
        tap[k, k, 0, 1], tap[64 + k, k, 0, 1] = 1, -1
    tap[0, 0, 0, 0], tap[64, 0, 0, 0] = -1, 1
    tensors["sign.weight"] = tap
    for name, half in (("luma", size.luma), ("chroma", size.chroma)):
        for key, value in half.state_dict().items():
            tensors[f"{name}.{key}"] = value
    save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump({"model_type": "kac-jpeg-size", "quality": QUALITY, "constant_bytes": size.constant, "measured": report}, f, indent=2)
        f.write("\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--emoji", required=True)
    p.add_argument("--digits", default="", help="MNIST's t10k-images-idx3-ubyte.gz, to measure on")
    p.add_argument("--samples", default="", help="a folder of PNGs that the shipped model drew, to measure on")
    p.add_argument("--out", default="weights/jpeg-size")
    p.add_argument("--pictures", type=int, default=900)
    p.add_argument("--steps", type=int, default=10000)
    p.add_argument("--threads", type=int, default=1)
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    source, other = Pictures(o.emoji, False), Pictures(o.emoji, True)
    seen = [source.any(rng, int(rng.choice([32, 64, 96, 128, 160]))) for _ in range(o.pictures)]
    flat = np.full((64, 64, 3), 128, np.uint8)
    constant = jpeg_bytes(flat) - sum(bits_of(c, min(i, 1)).sum() for i, c in enumerate(coefficients(flat, True))) / 8
    own = [np.asarray(Image.open(n).convert("RGB"), np.float64) for n in sorted(glob.glob(os.path.join(o.samples, "**", "*.png"), recursive=True))] if o.samples else []
    own = [x for x in own if x.shape[0] % 16 == 0 and x.shape[1] % 16 == 0]
    held = {"landscapes": [np.clip(landscape(rng, int(rng.choice([64, 128, 256]))), 0, 255) for _ in range(60)],
            "emoji": [other.drawn(rng, int(rng.choice([64, 96, 128]))) for _ in range(60)],
            "textured leaves": [np.clip(natural(rng, 128), 0, 255) for _ in range(40)],
            "noise": [np.clip(spectrum(rng, 128), 0, 255) for _ in range(40)]}
    if o.digits:
        held["digits"] = digits(o.digits, 60)
    if own:
        held["samples of shapes-64"] = own
    check = [jpeg_bytes(np.rint(x).astype(np.uint8)) / (constant + sum(bits_of(c, min(i, 1)).sum() for i, c in enumerate(coefficients(np.rint(x), True))) / 8)
             for x in held["landscapes"]]
    print(f"constant {constant:.1f} bytes; counted bits explain real files within {min(check):.4f} ... {max(check):.4f}")
    size = Size(Half(), Half(), float(constant))
    (cy, by), (cc, bc) = gather(seen)
    print(f"{len(by)} luma and {len(bc)} chroma blocks", flush=True)
    fit(size.luma, cy, by, o.steps, 0)
    fit(size.chroma, cc, bc, o.steps // 2, 1)
    report = {name: measure(size, x) | usefulness(size, x[:8]) for name, x in held.items()}
    for name, line in report.items():
        print(f"  {name:22s} {line}", flush=True)
    save(size, o.out, report)


if __name__ == "__main__":
    main()
