"""The strict judge of shapes pictures: a deterministic detector, no learning.

chroma mask -> connected components -> palette colour and template-matched shape of each -> comparison with the caption.

    verify(images, captions) -> list of bool        images: uint8 [N, 64, 64, 3]
    detect(images)           -> list of scenes, each object (shape, color, cx, cy, r, -template error)
"""
import argparse
import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import data  # noqa: E402

S = 24  # side of a template patch
ROTATIONS = [math.radians(d) for d in range(-24, 25, 8)]
SPAN = 2.1  # half width of a patch in rms radii
PALETTE = torch.tensor([data.COLORS[c] for c in data.CNAMES], dtype=torch.float32)


def moments(a):
    """Alpha [N, H, W] -> area, centroid x and y, rms radius, in pixels."""
    h, w = a.shape[-2:]
    gx = torch.arange(w) + 0.5
    gy = torch.arange(h) + 0.5
    m = a.sum((1, 2)).clamp(min=1e-6)
    cx = (a * gx).sum((1, 2)) / m
    cy = (a * gy[:, None]).sum((1, 2)) / m
    d2 = (gx[None, None] - cx[:, None, None]) ** 2 + (gy[None, :, None] - cy[:, None, None]) ** 2
    r2 = (a * d2).sum((1, 2)) / m
    return m, cx, cy, r2.clamp(min=0.25).sqrt()


def crop(a, cx, cy, r):
    """Resample so that the centroid is central and the rms radius is fixed."""
    g = (torch.arange(S) + 0.5) / S * 2 - 1
    w = a.shape[-1]
    gx = (cx[:, None, None] + g[None, None, :] * SPAN * r[:, None, None]).expand(-1, S, S) / w * 2 - 1
    gy = (cy[:, None, None] + g[None, :, None] * SPAN * r[:, None, None]).expand(-1, S, S) / w * 2 - 1
    return F.grid_sample(a[:, None], torch.stack([gx, gy], -1), align_corners=False, padding_mode="zeros")[:, 0]


_TEMPLATES = None


def templates():
    """Patches over shapes, rotations and sizes (the small ones carry the pixel blur), their shapes, and area / r^2."""
    global _TEMPLATES
    if _TEMPLATES is None:
        patches, labels, area = [], [], {}
        x0, y0 = data.grid()
        for k, shape in enumerate(data.SHAPES):
            for r in (7.2, 9.0, 13.0):
                for th in ROTATIONS if shape not in ("circle", "ring") else [0.0]:
                    x, y = (x0 - 32) / r, (y0 - 32) / r
                    c, n = math.cos(th), math.sin(th)
                    a = (0.5 - data.sdf(shape, x * c + y * n, -x * n + y * c) * r).clamp(0, 1)[None]
                    m, cx, cy, rms = moments(a)
                    patches.append(crop(a, cx, cy, rms)[0])
                    labels.append(k)
                    area[shape] = float(m) / r**2
        _TEMPLATES = torch.stack(patches), torch.tensor(labels), area
    return _TEMPLATES


def components(mask):
    """Bool [N, H, W] -> labels (0 = background); 4-neighbours, a label is 1 + the largest flat index of its part."""
    n, h, w = mask.shape
    label = torch.arange(1, h * w + 1).view(1, h, w).float() * mask
    while True:
        p = torch.maximum(
            F.max_pool2d(label[:, None], (3, 1), 1, (1, 0))[:, 0], F.max_pool2d(label[:, None], (1, 3), 1, (0, 1))[:, 0]
        )
        p = p * mask
        if torch.equal(p, label):
            return label.long()
        label = p


def dilate(m):
    return F.max_pool2d(m.float()[None, None], 3, 1, 1)[0, 0] > 0


def background(levels):
    """Kind of background from the grey levels outside all objects."""
    if len(levels) < 50:
        return "none"
    lo, hi, mid = levels.quantile(0.04), levels.quantile(0.96), levels.median()
    if hi - lo > 40:
        return "gradient"
    return "white" if mid > 205 else "black" if mid < 50 else "gray" if 90 < mid < 165 else "none"


@torch.no_grad()
def detect(imgs, min_area=22.0):
    """Pictures -> scenes; objects smaller than min_area pixels are ignored."""
    out = []
    patches, labels, area1 = templates()
    for start in range(0, len(imgs), 256):
        x = torch.from_numpy(np.ascontiguousarray(imgs[start : start + 256])).float()
        chroma = x.amax(-1) - x.amin(-1)
        mask = chroma > 62
        # distance to the palette: hue and saturation count fully, lightness by 0.35
        hue = (x[..., None, :] - x[..., None, :].mean(-1, keepdim=True)) - (PALETTE - PALETTE.mean(-1, keepdim=True))
        dist = hue.norm(dim=-1) + 0.35 * (x.mean(-1)[..., None] - PALETTE.mean(-1)).abs()
        nearest = dist.argmin(-1)
        comp = components(mask)
        owner, colors, alphas, bgs = [], [], [], []
        for i in range(len(x)):
            bgs.append(background(x[i].mean(-1)[~dilate(chroma[i] > 40)]))
            for label in comp[i].unique().tolist():
                if not label:
                    continue
                m = comp[i] == label
                if int(m.sum()) < 12:
                    continue
                core = m & (F.avg_pool2d(m.float()[None, None], 3, 1, 1)[0, 0] > 0.99)
                core = core if core.sum() >= 6 else m
                hist = torch.bincount(nearest[i][core], minlength=8)
                parts, cols = [m], [int(hist.argmax())]
                big = [k for k in range(8) if hist[k] > max(14, 0.2 * hist.sum())]
                if len(big) > 1:  # touching objects of different colours
                    parts = [m & (nearest[i] == k) for k in big]
                    cols = big
                for part, color in zip(parts, cols):
                    inner = part & core
                    full = chroma[i][inner].median().clamp(min=60) if inner.any() else 150
                    owner.append(i)
                    colors.append(color)
                    alphas.append((chroma[i] / full).clamp(0, 1) * dilate(part))
        scenes = [dict(objs=[], bg=(b, 0, 0, 0)) for b in bgs]
        if owner:
            a = torch.stack(alphas)
            m, cx, cy, r = moments(a)
            score = -torch.cdist(crop(a, cx, cy, r).flatten(1), patches.flatten(1)) / S
            best, j = score.max(1)
            found = zip(owner, colors, m.tolist(), cx.tolist(), cy.tolist(), best.tolist(), labels[j].tolist())
            for i, color, mass, x_, y_, q, t in found:
                if mass >= min_area:
                    s = data.SHAPES[t]
                    scenes[i]["objs"].append((s, data.CNAMES[color], x_, y_, math.sqrt(mass / area1[s]), q))
        out += scenes
    return out


def accepts(scene, spec, max_err=0.20):
    """Right objects and nothing else, and every object within max_err (rms) of its template."""
    return bool(all(o[5] > -max_err for o in scene["objs"]) and data.satisfies(scene, spec))


def verify(imgs, caps, max_err=0.20):
    return [
        accepts(s, data.parse(c) if isinstance(c, str) else c, max_err) for s, c in zip(detect(imgs), caps)
    ]


def main():
    ap = argparse.ArgumentParser(description="Measure the judge itself on rendered pictures.")
    ap.add_argument("--n", type=int, default=3000)
    ap.add_argument("--seed", type=int, default=99)
    a = ap.parse_args()
    specs, scenes, rng = data.make(a.n, a.seed, "all")
    found = detect(data.render(scenes))
    ok = {}
    for sp, f in zip(specs, found):
        ok.setdefault(sp["cat"], []).append(accepts(f, sp))
    print("right on rendered pictures:", {k: round(float(np.mean(v)), 4) for k, v in ok.items()})
    err = np.array([-o[5] for f in found for o in f["objs"]])
    print("template error, quantiles 50/99/100 %:", np.quantile(err, [0.5, 0.99, 1]).round(3))
    wrong = [accepts(f, data.negative(s, rng)[0]) for s, f in zip(specs, found)]
    print("wrong captions accepted:", float(np.mean(wrong)))


if __name__ == "__main__":
    main()
