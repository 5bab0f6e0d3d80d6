"""The procedural data set of coloured shapes: scenes, captions, pictures, hard negatives and the tokenizer.

Everything is drawn from a seeded random.Random, so the same seed gives the same data everywhere.

    spec    what a caption says: dict(cat, objs=[(shape, color | None, size | None)], n, rel, bg); n > 1 only when counting
    scene   what a picture shows: dict(objs=[(shape, color, cx, cy, r, 0)], bg=(kind, level, level, angle)), pixels
"""
import argparse
import json
import math
import os
import random
import re
import zlib

import numpy as np
import torch

SHAPES = ["circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring"]
PLURAL = {s: s + "s" for s in SHAPES}
PLURAL["cross"] = "crosses"
COLORS = {
    "red": (220, 35, 40),
    "green": (35, 165, 60),
    "blue": (35, 75, 225),
    "yellow": (250, 220, 35),
    "purple": (135, 45, 175),
    "orange": (250, 135, 25),
    "cyan": (35, 205, 220),
    "pink": (250, 125, 190),
}
CNAMES = list(COLORS)
BGS = ["white", "black", "gray", "gradient"]
RELS = ["above", "below", "left", "right"]
OPP = {"above": "below", "below": "above", "left": "right", "right": "left"}
RELTXT = {
    "above": ["above", "over", "on top of"],
    "below": ["below", "under", "beneath"],
    "left": ["left of", "to the left of"],
    "right": ["right of", "to the right of"],
}
NUM = {2: ["two", "2"], 3: ["three", "3"], 4: ["four", "4"]}
CATS = ["single", "two", "counting", "attribution", "position", "size", "background"]
PREFIX = ["", "", "", "a picture of ", "an image of ", "a drawing of "]
SIZES = {"small": ["small", "tiny", "little"], "large": ["large", "big", "huge"]}
MAXLEN = 32  # positions of the text encoders
BIG = 13.8  # radius that separates small from large

# ----------------------------------------------------------------------------------------------- specs and captions


def held(key):
    return zlib.crc32(key.encode()) % 8 == 0


def is_heldout(sp):
    """One in eight combinations is never trained on; the key fixes which, independently of any seed."""
    o = sp["objs"]
    if sp["cat"] in ("attribution", "position"):
        return held("pair:" + "|".join(sorted(f"{s},{c}" for s, c, _ in o)))
    if sp["cat"] == "counting":
        return held(f"cnt:{sp['n']},{o[0]}")
    if sp["cat"] == "size":
        return held(f"size:{o[0]}")
    if sp["cat"] == "background":
        return held(f"bg:{o[0]},{sp['bg']}")
    return False


def rand_spec(rng, cat=None, split="train"):
    """A random spec of a category; split is train, heldout or all."""
    while True:
        c = cat or rng.choices(CATS, [14, 12, 16, 20, 22, 8, 8])[0]
        sh = rng.sample(SHAPES, 2)
        co = rng.sample(CNAMES, 2)
        sp = dict(cat=c, objs=[(sh[0], co[0], None)], n=1, rel=None, bg=None)
        if c == "single" and rng.random() < 0.25:
            sp["objs"] = [(sh[0], None, None)]
        elif c == "two":
            sp["objs"] = [(sh[0], None, None), (sh[1], None, None)]
        elif c == "counting":
            sp["n"] = rng.choice([2, 3, 4])
            sp["objs"] = [(sh[0], co[0] if rng.random() < 0.75 else None, None)]
        elif c in ("attribution", "position"):
            sp["objs"] = [(sh[0], co[0], None), (sh[1], co[1], None)]
            if c == "position":
                sp["rel"] = rng.choice(RELS)
        elif c == "size":
            sp["objs"] = [(sh[0], co[0] if rng.random() < 0.5 else None, rng.choice(["small", "large"]))]
        elif c == "background":
            sp["bg"] = rng.choice(BGS)
        if c != "background" and split == "train" and rng.random() < 0.12:
            sp["bg"] = rng.choice(BGS)
        if split == "all" or is_heldout(sp) == (split == "heldout"):
            return sp


def noun_phrase(o, rng):
    shape, color, size = o
    if size:
        size = SIZES[size][rng.choice([0, 0, 1, 2])]
    w = " ".join(x for x in (size, color, shape) if x)
    return ("an " if w[0] in "aeiou" else "a ") + w


def caption(sp, rng, plain=False):
    """The spec in words; plain always takes the first wording."""
    o = sp["objs"]
    prefix = "" if plain else rng.choice(PREFIX)
    if plain:
        rng = random.Random(0)
    if sp["n"] > 1:
        number = NUM[sp["n"]][0 if plain else rng.choice([0, 0, 0, 1])]
        t = f"{number} " + " ".join(x for x in (o[0][1], PLURAL[o[0][0]]) if x)
    elif len(o) == 1:
        t = noun_phrase(o[0], rng)
    elif sp["rel"]:
        words = RELTXT[sp["rel"]]
        t = f"{noun_phrase(o[0], rng)} {words[0] if plain else rng.choice(words)} {noun_phrase(o[1], rng)}"
    else:
        t = f"{noun_phrase(o[0], rng)} {'and' if plain else rng.choice(['and', 'and', 'next to', 'with'])} {noun_phrase(o[1], rng)}"
    t = prefix + t
    if sp["bg"]:
        t += f" on a {sp['bg']} background"
    return t


_PLURALS = {p: s for s, p in PLURAL.items()}
_NUMBERS = {w: n for n, ws in NUM.items() for w in ws}
_SIZES = {w: z for z, ws in SIZES.items() for w in ws}
_RELWORDS = {"over": "above", "top": "above", "under": "below", "beneath": "below"}
_RELWORDS.update({r: r for r in RELS})


def parse(text):
    """Caption text to spec (case does not matter); None when it names no shape."""
    t = re.sub(r"[^a-z0-9 ]", " ", text.lower())
    bg = None
    m = re.search(r"\b(white|black|gray|grey|gradient)\s+background", t)
    if m:
        bg = m.group(1).replace("grey", "gray")
        t = t[: m.start()]
    objs, color, size, n, count, rel = [], None, None, 1, 1, None
    for w in t.split():
        if w in COLORS:
            color = w
        elif w in _SIZES:
            size = _SIZES[w]
        elif w in _NUMBERS:
            n = _NUMBERS[w]
        elif w in _PLURALS or w in PLURAL:
            objs.append((_PLURALS.get(w, w), color, size))
            count = max(count, n)
            color = size = None
            n = 1
        elif len(objs) == 1 and w in _RELWORDS:
            rel = _RELWORDS[w]
    if not objs:
        return None
    if len(objs) == 1:
        cat = "counting" if count > 1 else "size" if objs[0][2] else "background" if bg else "single"
    else:
        cat = "position" if rel else "attribution" if objs[0][1] else "two"
    return dict(cat=cat, objs=objs, n=count, rel=rel, bg=bg)


# ----------------------------------------------------------------------------------------------- scenes


def rand_scene(sp, rng):
    """A random scene that satisfies the spec; in position scenes one axis clearly dominates."""
    want = list(sp["objs"]) * (sp["n"] if len(sp["objs"]) == 1 else 1)
    k = len(want)
    mono = rng.choice(CNAMES)
    while True:
        objs = []
        for shape, color, size in want:
            if color is None:
                color = mono if sp["n"] > 1 else rng.choice(CNAMES)
            if size == "small":
                r = rng.uniform(9.5, 11.5)
            elif size == "large":
                r = rng.uniform(16, 20)
            elif k == 1:
                r = rng.uniform(10, 18)
            elif k == 2:
                r = rng.uniform(10, 13)
            else:
                r = rng.uniform(9.2, 11.5 if k == 3 else 10.8)
            for _ in range(20):
                m = r * 1.1 + 1
                cx, cy = rng.uniform(m, 64 - m), rng.uniform(m, 64 - m)
                if all(math.hypot(cx - q[2], cy - q[3]) > 1.08 * (r + q[4]) + 2 for q in objs):
                    objs.append((shape, color, cx, cy, r, 0.0))
                    break
            else:
                break
        if len(objs) < k:
            continue
        if sp["rel"]:
            if relation(objs[0], objs[1]) != sp["rel"]:
                continue
            dx, dy = abs(objs[0][2] - objs[1][2]), abs(objs[0][3] - objs[1][3])
            if max(dx, dy) < 1.6 * min(dx, dy):
                continue
        break
    return dict(objs=objs, bg=rand_background(sp["bg"] or rng.choice(BGS[:3]), rng))


def rand_background(kind, rng):
    if kind == "white":
        p = (rng.uniform(240, 255),) * 2
    elif kind == "black":
        p = (rng.uniform(0, 18),) * 2
    elif kind == "gray":
        p = (rng.uniform(115, 140),) * 2
    else:
        dark, light = rng.uniform(60, 120), rng.uniform(190, 235)
        p = (dark, light) if rng.random() < 0.5 else (light, dark)
    return kind, p[0], p[1], rng.uniform(0, math.pi) if kind == "gradient" else 0.0


def relation(a, b):
    """Where a lies as seen from b, along the axis on which they are further apart."""
    dx, dy = a[2] - b[2], a[3] - b[3]
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def satisfies(scene, sp):
    """Exact check of a scene (true or detected): counts, shapes, colours, sizes, relation and background."""
    o, w = scene["objs"], sp["objs"]
    if sp["bg"] and scene["bg"][0] != sp["bg"]:
        return False

    def match(d, q):
        return d[0] == q[0] and (q[1] is None or d[1] == q[1]) and (q[2] is None or (d[4] > BIG) == (q[2] == "large"))

    if len(w) == 1:
        return len(o) == sp["n"] and all(match(d, w[0]) for d in o) and len({d[1] for d in o}) == 1
    if len(o) != len(w):
        return False
    if len(w) == 2:
        return any(
            match(p, w[0]) and match(q, w[1]) and (not sp["rel"] or relation(p, q) == sp["rel"]) for p, q in (o, o[::-1])
        )
    left = list(o)
    for q in w:
        found = next((d for d in left if match(d, q)), None)
        if found is None:
            return False
        left.remove(found)
    return True


# ----------------------------------------------------------------------------------------------- hard negatives

OPS = ["shape", "color", "swapcolor", "count", "rel", "swapobj", "size", "bg", "drop"]


def negative(sp, rng):
    """A spec that is close to sp but wrong for its pictures, and the kind of change."""
    o = list(sp["objs"])
    n, rel, bg = sp["n"], sp["rel"], sp["bg"]
    ops = ["shape"]
    if o[0][1]:
        ops += ["color"]
    if len(o) == 2 and o[0][1]:
        ops += ["swapcolor"] * 4
    if len(o) == 1:
        ops += ["count"] * (3 if n > 1 else 1)
    if rel:
        ops += ["rel"] * 3 + ["swapobj"] * 4
    if o[0][2]:
        ops += ["size"] * 2
    if bg:
        ops += ["bg"]
    if len(o) == 2:
        ops += ["drop"]
    op = rng.choice(ops)
    i = rng.randrange(len(o))
    s, c, z = o[i]
    if op == "shape":
        o[i] = (rng.choice([x for x in SHAPES if x not in [q[0] for q in o]]), c, z)
    elif op == "color":
        o[i] = (s, rng.choice([x for x in CNAMES if x != c]), z)
    elif op == "swapcolor":
        o = [(o[0][0], o[1][1], None), (o[1][0], o[0][1], None)]
    elif op == "count":
        n = rng.choice([x for x in (1, 2, 3, 4) if x != n])
    elif op == "rel":
        rel = rng.choice([x for x in RELS if x != rel])
    elif op == "swapobj":
        o = o[::-1]
    elif op == "size":
        o[i] = (s, c, "small" if z == "large" else "large")
    elif op == "bg":
        bg = rng.choice([x for x in BGS if x != bg])
    elif op == "drop":
        o = [o[i]]
        rel = None
    if n > 1:
        o = [(o[0][0], o[0][1], None)]
    return dict(cat=sp["cat"], objs=o, n=n, rel=rel, bg=bg), op


# ----------------------------------------------------------------------------------------------- rendering


def sdf(shape, x, y):
    """Signed distance to the outline in units of the radius; x to the right, y down."""
    if shape == "circle":
        return torch.sqrt(x * x + y * y) - 0.95
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.86
    if shape == "triangle":
        y = y - 0.15
        return torch.maximum(y, torch.maximum(-0.5 * y + 0.866 * x, -0.5 * y - 0.866 * x)) - 0.58
    if shape == "star":
        a = torch.atan2(x, -y)
        w = 2 * math.pi / 5
        f = (torch.remainder(a + w / 2, w) - w / 2).abs()  # fold into one half point
        r = torch.sqrt(x * x + y * y)
        px, py = r * torch.cos(f), r * torch.sin(f)
        ix, iy = 0.46 * math.cos(w / 2), 0.46 * math.sin(w / 2)
        dx, dy = ix - 1.1, iy
        return ((px - 1.1) * dy - py * dx) / math.hypot(dx, dy)
    if shape == "heart":
        k = 0.58
        x = (x * k).abs()
        y = -y * k + 0.52
        d1 = torch.sqrt((x - 0.25) ** 2 + (y - 0.75) ** 2) - math.sqrt(2) / 4
        m = 0.5 * torch.clamp(x + y, min=0)
        d2 = torch.sqrt(torch.minimum(x * x + (y - 1) ** 2, (x - m) ** 2 + (y - m) ** 2)) * torch.sign(x - y)
        return torch.where(x + y > 1, d1, d2) / k
    if shape == "cross":
        x, y = x.abs(), y.abs()
        return torch.minimum(torch.maximum(x - 1, y - 0.34), torch.maximum(x - 0.34, y - 1))
    if shape == "diamond":
        return (x.abs() / 0.68 + y.abs() / 1.1 - 1) / math.sqrt(1 / 0.68**2 + 1 / 1.1**2)
    if shape == "ring":
        return (torch.sqrt(x * x + y * y) - 0.76).abs() - 0.26
    raise KeyError(shape)


def grid():
    g = torch.arange(64) + 0.5
    y, x = torch.meshgrid(g, g, indexing="ij")
    return x, y


def backgrounds(scenes):
    """Grey levels of the backgrounds, [N, 64, 64]."""
    x, y = grid()
    b = torch.tensor([s["bg"][1:] for s in scenes])[:, :, None, None]
    u = ((x - 32)[None] * torch.cos(b[:, 2]) + (y - 32)[None] * torch.sin(b[:, 2])) / 64 + 0.5
    return (b[:, 0] * (1 - u) + b[:, 1] * u).clamp(0, 255)


def render(scenes, chunk=512):
    """Antialiased pictures of scenes, uint8 [N, 64, 64, 3]."""
    out = np.empty((len(scenes), 64, 64, 3), np.uint8)
    x0, y0 = grid()
    for start in range(0, len(scenes), chunk):
        part = scenes[start : start + chunk]
        img = backgrounds(part)[..., None].repeat(1, 1, 1, 3)
        for k in range(4):
            for shape in SHAPES:
                it = [(i, q["objs"][k]) for i, q in enumerate(part) if len(q["objs"]) > k and q["objs"][k][0] == shape]
                if not it:
                    continue
                idx = torch.tensor([i for i, _ in it])
                p = torch.tensor([o[2:5] for _, o in it])[:, :, None, None]
                color = torch.tensor([COLORS[o[1]] for _, o in it], dtype=torch.float32)
                d = sdf(shape, (x0[None] - p[:, 0]) / p[:, 2], (y0[None] - p[:, 1]) / p[:, 2])
                alpha = (0.5 - d * p[:, 2]).clamp(0, 1)[..., None]
                img[idx] = img[idx] * (1 - alpha) + color[:, None, None, :] * alpha
        out[start : start + len(part)] = img.round().clamp(0, 255).to(torch.uint8).numpy()
    return out


def make(n, seed, split="train", cat=None):
    """n specs, their scenes, and the generator to draw the captions from."""
    rng = random.Random(seed)
    specs = [rand_spec(rng, cat, split) for _ in range(n)]
    return specs, [rand_scene(s, rng) for s in specs], rng


# ----------------------------------------------------------------------------------------------- tokenizer

# Words outside the captions, so that other prompts do not fall apart into bytes.
EXTRA = """the of in and to is with for at by from it this that photo small bright dark light color colour colored shape shapes object objects
one five six seven eight brown grey magenta teal rectangle oval hexagon pentagon arrow line dot dots side top bottom center middle corner between behind
front inside outside beside near far no not without only all each every big huge tiny little filled plain simple clean solid scene image picture drawing
painting illustration rendering sketch icon logo symbol cat dog house tree sun moon flower car person bird fish ball box apple banana orange cube sphere
high quality detailed beautiful art style digital abstract minimal geometric background foreground sky water grass wall floor table""".split()


def bytes_to_unicode():
    """The printable stand-ins for the 256 bytes that CLIP's byte-level BPE uses."""
    bs = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    cs = bs[:]
    n = 0
    for b in range(256):
        if b not in bs:
            bs.append(b)
            cs.append(256 + n)
            n += 1
    return dict(zip(bs, map(chr, cs)))


def build_tokenizer(path, size=1000):
    """Learn a small byte-level BPE from captions and write it in CLIP's format; returns the number of entries."""
    os.makedirs(path, exist_ok=True)
    rng = random.Random(1)
    freq = {}
    for _ in range(4000):
        for w in caption(rand_spec(rng, split="all"), rng).split():
            freq[w] = freq.get(w, 0) + 1
    for w in EXTRA:
        freq[w] = freq.get(w, 0) + 3
    words = {tuple(w[:-1]) + (w[-1] + "</w>",): f for w, f in freq.items()}
    base = list(bytes_to_unicode().values())
    vocab = base + [c + "</w>" for c in base]
    merges = []
    while len(vocab) < size - 2:
        pairs = {}
        for w, f in words.items():
            for p in zip(w, w[1:]):
                pairs[p] = pairs.get(p, 0) + f
        if not pairs:
            break
        p = max(pairs, key=lambda q: (pairs[q], q))
        merges.append(p)
        vocab.append("".join(p))
        merged = {}
        for w, f in words.items():
            r, i = [], 0
            while i < len(w):
                if i + 1 < len(w) and (w[i], w[i + 1]) == p:
                    r.append(w[i] + w[i + 1])
                    i += 2
                else:
                    r.append(w[i])
                    i += 1
            merged[tuple(r)] = merged.get(tuple(r), 0) + f
        words = merged
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    with open(f"{path}/vocab.json", "w") as f:
        json.dump({v: i for i, v in enumerate(vocab)}, f, ensure_ascii=False)
    with open(f"{path}/merges.txt", "w") as f:
        f.write("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")

    def special(c):
        return dict(content=c, lstrip=False, normalized=True, rstrip=False, single_word=False)

    tokens = dict(
        bos_token=special("<|startoftext|>"),
        eos_token=special("<|endoftext|>"),
        pad_token="<|endoftext|>",
        unk_token=special("<|endoftext|>"),
    )
    with open(f"{path}/special_tokens_map.json", "w") as f:
        json.dump(tokens, f, indent=1)
    config = dict(
        add_prefix_space=False,
        do_lower_case=True,
        errors="replace",
        model_max_length=MAXLEN,
        tokenizer_class="CLIPTokenizer",
        **tokens,
    )
    with open(f"{path}/tokenizer_config.json", "w") as f:
        json.dump(config, f, indent=1)
    return len(vocab)


def tokenize(tok, texts):
    """Token ids padded to the encoders' length, [N, 32]."""
    ids = tok(list(texts), padding="max_length", max_length=MAXLEN, truncation=True).input_ids
    return torch.tensor(ids, dtype=torch.long)


def check(n, seed):
    """Captions, parser, scenes and negatives agree with each other; returns the number of disagreements."""
    specs, scenes, rng = make(n, seed, "all")
    bad = 0
    for sp, sc in zip(specs, scenes):
        back = parse(caption(sp, rng))
        same = all(back[k] == sp[k] for k in ("objs", "n", "rel", "bg"))
        wrong = satisfies(sc, negative(sp, rng)[0])
        bad += not (same and satisfies(sc, sp) and not wrong)
    return bad


def main():
    ap = argparse.ArgumentParser(description="Check the data set, show a sheet of it, or build the tokenizer.")
    ap.add_argument("--check", type=int, metavar="N", help="check N captions and scenes against each other")
    ap.add_argument("--sheet", metavar="PNG", help="write a sheet of 64 pictures")
    ap.add_argument("--tokenizer", metavar="DIR", help="build the tokenizer into this folder")
    ap.add_argument("--seed", type=int, default=7)
    a = ap.parse_args()
    if a.check:
        print("disagreements:", check(a.check, a.seed), "of", a.check)
    if a.sheet:
        from PIL import Image

        im = render(make(64, a.seed)[1])
        sheet = im.reshape(8, 8, 64, 64, 3).transpose(0, 2, 1, 3, 4).reshape(512, 512, 3)
        Image.fromarray(sheet).resize((1024, 1024), 0).save(a.sheet)
    if a.tokenizer:
        print("entries:", build_tokenizer(a.tokenizer))


if __name__ == "__main__":
    main()
