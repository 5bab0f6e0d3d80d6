"""Measure shapes-64 (generator) and shapes-clip (reward) with the strict judge.

    samples   draw N pictures for every prompt; done prompts are kept, so an interrupted run goes on
    report    tables: one sample, best-of-N by the CLIP, any-of-N, by category, with 95 % intervals
    clip      the CLIP's accuracy on hard negative captions of rendered pictures, by kind, seen and held out
    sheet     a contact sheet of samples
    label     pictures labelled by the judge's detector, for the vision stage of train_clip.py
"""
import argparse
import glob
import json
import math
import os
import random
import sys

import numpy as np
import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import data  # noqa: E402
import verifier  # noqa: E402

WEIGHTS = os.path.join(HERE, "..", "..", "weights")


def prompts(per, seed):
    """[(category, seen | heldout, caption)]: half held-out combinations where the category has them."""
    rng = random.Random(seed)
    out = []
    for c in data.CATS:
        h = 0 if c in ("single", "two") else per // 2
        for split, k in (("train", per - h), ("heldout", h)):
            for _ in range(k):
                sp = data.rand_spec(rng, c, split)
                if c != "background":
                    sp["bg"] = None
                out.append((c, "heldout" if split == "heldout" else "seen", data.caption(sp, rng, True)))
    return out


def wilson(k, n, z=1.96):
    """95 % interval of a proportion."""
    if not n:
        return 0.0, 1.0
    p = k / n
    mid = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return mid - half, mid + half


# ----------------------------------------------------------------------------------------------- generator


class Pipeline:
    """DDIM with classifier-free guidance on the parts of a StableDiffusionPipeline folder."""

    def __init__(self, root):
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from diffusers.models.attention_processor import AttnProcessor
        from transformers import CLIPTextModel, CLIPTokenizer

        self.unet = UNet2DConditionModel.from_pretrained(f"{root}/unet", torch_dtype=torch.float32).eval()
        self.unet.set_attn_processor(AttnProcessor())
        self.unet.to(memory_format=torch.channels_last)
        self.vae = AutoencoderKL.from_pretrained(f"{root}/vae", torch_dtype=torch.float32).eval()
        self.text = CLIPTextModel.from_pretrained(f"{root}/text_encoder", torch_dtype=torch.float32).eval()
        self.tok = CLIPTokenizer.from_pretrained(f"{root}/tokenizer")
        self.scheduler = DDIMScheduler.from_pretrained(f"{root}/scheduler")

    def encode(self, texts):
        return self.text(input_ids=data.tokenize(self.tok, texts)).last_hidden_state

    @torch.no_grad()
    def __call__(self, caps, steps=25, cfg=3.0, eta=0.0, seed=0):
        emb, unc = self.encode(caps), self.encode([""]).expand(len(caps), -1, -1)
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(len(caps), 4, 16, 16, generator=g)
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            if cfg == 1:
                o = self.unet(x, t, emb).sample
            else:
                both = torch.cat([x, x]).contiguous(memory_format=torch.channels_last)
                a, b = self.unet(both, t, torch.cat([unc, emb])).sample.chunk(2)
                o = a + cfg * (b - a)
            x = self.scheduler.step(o, t, x, eta=eta, generator=g).prev_sample
        return self.decode(x)

    @torch.no_grad()
    def decode(self, x):
        im = torch.cat([self.vae.decode(z / self.vae.config.scaling_factor).sample for z in x.split(16)])
        return (im.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def samples(a):
    """Each prompt's pictures depend on its own seed only, so several ranks can share the work."""
    os.makedirs(a.out, exist_ok=True)
    pipe = Pipeline(a.pipe)
    # one prompt of every category in turn, alternately seen and held out: a run cut short is still balanced
    half = a.per - a.per // 2
    order = [c * a.per + (j // 2 + j % 2 * half) for j in range(a.per) for c in range(len(data.CATS))]
    caps = [cap for _, _, cap in prompts(a.per, a.seed)]
    for turn, i in enumerate(order):
        cap = caps[i]
        path = f"{a.out}/eta{a.eta:g}_cfg{a.cfg:g}_{i:04d}.npy"
        if turn % a.world == a.rank and not os.path.exists(path):
            im = pipe([cap] * a.n, a.steps, a.cfg, a.eta, a.seed + 7919 * i)
            np.save(path, im)
            print(i, cap, sum(verifier.verify(im, [cap] * a.n)), "of", a.n, flush=True)


# ----------------------------------------------------------------------------------------------- reward


class Reward:
    def __init__(self, root):
        from transformers import CLIPModel, CLIPTokenizer

        self.m = CLIPModel.from_pretrained(root, torch_dtype=torch.float32).eval()
        self.tok = CLIPTokenizer.from_pretrained(root)

    @torch.no_grad()
    def text(self, caps):
        o = self.m.text_model(input_ids=data.tokenize(self.tok, caps))
        return F.normalize(self.m.text_projection(o.pooler_output), dim=-1)

    @torch.no_grad()
    def image(self, imgs):
        x = torch.from_numpy(imgs).permute(0, 3, 1, 2).float() / 127.5 - 1
        o = [self.m.vision_model(pixel_values=p).pooler_output for p in x.split(64)]
        return F.normalize(self.m.visual_projection(torch.cat(o)), dim=-1)


def captions_by_kind(sp, rng):
    """One hard negative of every kind that applies to the spec."""
    out = {}
    for _ in range(60):
        q, op = data.negative(sp, rng)
        out.setdefault(op, q)
    return out


def clip_accuracy(root, n, seed, split):
    """{kind: [right?]}: is the true caption scored above the false one?"""
    reward = Reward(root)
    rng = random.Random(seed)
    weights = [10, 12, 16, 18, 26, 8, 8] if split == "train" else [0, 0, 3, 4, 5, 2, 2]
    specs = [data.rand_spec(rng, rng.choices(data.CATS, weights)[0], split) for _ in range(n)]
    v = reward.image(data.render([data.rand_scene(s, rng) for s in specs]))
    pos = (v * reward.text([data.caption(s, rng) for s in specs])).sum(-1)
    wins = {op: [] for op in data.OPS}
    owner, ops, caps = [], [], []
    for i, sp in enumerate(specs):
        for op, q in captions_by_kind(sp, rng).items():
            owner.append(i)
            ops.append(op)
            caps.append(data.caption(q, rng))
    t = torch.cat([reward.text(caps[i : i + 256]) for i in range(0, len(caps), 256)])
    right = pos[owner] > (v[owner] * t).sum(-1)
    for op, w in zip(ops, right.tolist()):
        wins[op].append(w)
    return wins


def clip(a):
    rows = {s: clip_accuracy(a.clip, a.pairs, a.seed + 5, s) for s in ("train", "heldout")}
    print(f"| kind | seen | held out |\n|---|---|---|")
    for op in data.OPS:
        cells = []
        for s in ("train", "heldout"):
            w = rows[s][op]
            lo, hi = wilson(sum(w), len(w))
            cells.append(f"{100 * np.mean(w):.1f} % ({100 * lo:.1f}–{100 * hi:.1f}, n={len(w)})")
        print(f"| {op} | " + " | ".join(cells) + " |")
    every = {s: [c for w in rows[s].values() for c in w] for s in rows}
    print("| all | " + " | ".join(f"{100 * np.mean(every[s]):.1f} % (n={len(every[s])})" for s in ("train", "heldout")) + " |")


# ----------------------------------------------------------------------------------------------- tables


def load(a):
    """[(category, split, caption, pictures)] of the drawn samples."""
    out = []
    for i, (c, s, cap) in enumerate(prompts(a.per, a.seed)):
        path = f"{a.out}/eta{a.eta:g}_cfg{a.cfg:g}_{i:04d}.npy"
        if os.path.exists(path):
            out.append((c, s, cap, np.load(path)))
    return out


def report(a):
    reward = Reward(a.clip)
    rows = []
    for c, s, cap, im in load(a):
        score = (reward.image(im) * reward.text([cap])).sum(-1).tolist()
        rows.append(dict(cat=c, split=s, cap=cap, ok=verifier.verify(im, [cap] * len(im)), score=score))
    if a.json:
        with open(a.json, "w") as f:
            json.dump(rows, f)

    def best(r, n):
        return r["ok"][int(np.argmax(r["score"][:n]))]

    n = max(len(r["ok"]) for r in rows)
    print(f"{a.steps} DDIM steps, CFG {a.cfg:g}, eta {a.eta:g}; {len(rows)} prompts, {n} samples each\n")
    print(f"| | prompts | one sample | best of {n // 2} by CLIP | best of {n} by CLIP | any of {n} | CLIP picks a right one when some are, some not (chance) |")
    print("|---|---|---|---|---|---|---|")
    groups = [(c, [r for r in rows if r["cat"] == c]) for c in data.CATS]
    groups += [(s, [r for r in rows if r["split"] == s]) for s in ("seen", "heldout")] + [("all", rows)]
    for name, q in groups:
        if not q:
            continue
        one = np.array([np.mean(r["ok"]) for r in q])
        se = 1.96 * one.std() / math.sqrt(len(q))
        cells = [f"{one.mean():.2f} ± {se:.2f}"]
        for hits in ([best(r, n // 2) for r in q], [best(r, n) for r in q], [any(r["ok"]) for r in q]):
            lo, hi = wilson(sum(hits), len(hits))
            cells.append(f"{np.mean(hits):.2f} ({lo:.2f}–{hi:.2f})")
        mixed = [r for r in q if any(r["ok"]) and not all(r["ok"])]
        if mixed:
            cells.append(f"{np.mean([best(r, n) for r in mixed]):.2f} ({np.mean([np.mean(r['ok']) for r in mixed]):.2f}), n={len(mixed)}")
        else:
            cells.append("–")
        print(f"| {name} | {len(q)} | " + " | ".join(cells) + " |")


def sheet(a):
    """First sample of eight prompts of every category; the frame tells what the judge says."""
    from PIL import Image

    rows = load(a)
    canvas = Image.new("RGB", (8 * 100, len(data.CATS) * 100), "white")
    for y, c in enumerate(data.CATS):
        for x, (_, _, cap, im) in enumerate([r for r in rows if r[0] == c][:8]):
            ok = verifier.verify(im[:1], [cap])[0]
            tile = Image.new("RGB", (98, 98), (0, 150, 0) if ok else (200, 0, 0))
            tile.paste(Image.fromarray(im[0]).resize((94, 94), Image.BICUBIC), (2, 2))
            canvas.paste(tile, (x * 100, y * 100))
            print(c, "|", cap, "|", "right" if ok else "wrong")
    canvas.save(a.png, optimize=True)


def label(a):
    """Pictures drawn for random captions, with what the detector sees in them."""
    os.makedirs(a.out, exist_ok=True)
    pipe = Pipeline(a.pipe)
    rng = random.Random(a.seed)
    have = len(glob.glob(f"{a.out}/label_*.npz"))
    for i in range(have, a.per):
        rng = random.Random(a.seed * 1009 + i)
        caps = [data.caption(data.rand_spec(rng, rng.choices(data.CATS, [5, 16, 14, 20, 30, 8, 7])[0]), rng) for _ in range(a.n)]
        im = pipe(caps, a.steps, a.cfg, a.eta, a.seed * 1009 + i)
        np.savez(f"{a.out}/label_{i:04d}.npz", images=im, captions=caps, scenes=json.dumps(verifier.detect(im)))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=["samples", "report", "clip", "sheet", "label"])
    ap.add_argument("--pipe", default=os.path.join(WEIGHTS, "shapes-64"))
    ap.add_argument("--clip", default=os.path.join(WEIGHTS, "shapes-clip"))
    ap.add_argument("--out", default="shapes-eval", help="folder for the drawn pictures")
    ap.add_argument("--per", type=int, default=30, help="prompts per category (label: batches)")
    ap.add_argument("--n", type=int, default=8, help="samples per prompt (label: pictures per batch)")
    ap.add_argument("--steps", type=int, default=25)
    ap.add_argument("--cfg", type=float, default=3.0)
    ap.add_argument("--eta", type=float, default=0.0)
    ap.add_argument("--seed", type=int, default=777)
    ap.add_argument("--pairs", type=int, default=3000, help="pictures for the CLIP's accuracy")
    ap.add_argument("--rank", type=int, default=0, help="share of the prompts this process draws")
    ap.add_argument("--world", type=int, default=1)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--json", help="report: also write every score here")
    ap.add_argument("--png", default="samples.png")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    globals()[a.what](a)


if __name__ == "__main__":
    main()
