"""Train shapes-clip, a CLIPModel that judges pictures of coloured shapes.

Contrast between pictures and captions alone teaches binding, relation and order very slowly. So the joint space is
built first, without words and pixels, and then each tower learns to reach it:

    symbols   Two small networks: the caption tower embeds what a caption says, the scene tower what a picture shows
              (exact objects and places). They are trained against each other with hard negatives on both sides. It
              takes minutes, because nothing has to be recognised.
    text      The CLIP text tower learns to reach the caption tower's 128 numbers. Heads that name the subject, the
              object, the relation and what is on each side keep all of that readable from its last hidden state.
    vision    The CLIP vision tower learns to reach the scene tower's 128 numbers from freshly rendered pictures, with
              a head that names the object under every patch, and with hard negative captions and altered scenes.
    join      Put both towers together into a CLIPModel folder in half precision.

Every stage is seeded. The vision stage, the long one, writes a checkpoint to --out every few minutes and goes on from
it when started again.
"""
import argparse
import copy
import glob
import json
import math
import os
import random
import shutil
import sys
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import data  # noqa: E402

WEIGHTS = os.path.join(HERE, "..", "..", "weights")
TOKENIZER_FILES = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"]
DIM = 128  # numbers of an embedding
LEN = 20  # the longest caption has 19 tokens
MAXOBJ = 6  # an altered or a generated picture may have more objects than a caption asks for
K = 8  # hard negative captions per picture
# How often each category is drawn; position most, because relation and order are learnt last.
CATW = [10, 12, 16, 18, 26, 8, 8]
CATW_HELDOUT = [0, 0, 3, 4, 5, 2, 2]

# ----------------------------------------------------------------------------------------------- captions as symbols


def canonical(sp):
    """Captions that mean the same get the same key: 'A below B' is 'B above A', 'A and B' is 'B and A'."""
    o, rel = list(sp["objs"]), sp["rel"]
    if len(o) == 2:
        if rel in ("below", "right"):
            o, rel = o[::-1], data.OPP[rel]
        elif rel is None:
            o = sorted(o, key=str)
    return tuple(o), sp["n"], rel, sp["bg"]


SPEC_DIM = 180
_SPECS = {}


def spec_features(specs):
    """One-hot description of what captions say; (shape, colour) pairs also have entries of their own."""
    out = np.zeros((len(specs), SPEC_DIM), np.float32)
    for i, sp in enumerate(specs):
        key = canonical(sp)
        f = _SPECS.get(key)
        if f is None:
            f = np.zeros(SPEC_DIM, np.float32)
            objs, n, rel, bg = key
            for j, (s, c, z) in enumerate(objs):
                f[j * 20 + data.SHAPES.index(s)] = 1
                f[j * 20 + 8 + (data.CNAMES.index(c) if c else 8)] = 1
                f[j * 20 + 17 + (0 if z is None else 1 if z == "small" else 2)] = 1
                if c:
                    f[52 + j * 64 + data.SHAPES.index(s) * 8 + data.CNAMES.index(c)] = 1
            f[40 + n - 1] = 1
            f[44 + (0 if rel is None else 1 if rel == "above" else 2)] = 1
            f[47 + (data.BGS.index(bg) if bg else 4)] = 1
            _SPECS[key] = f
        out[i] = f
    return torch.from_numpy(out)


def kinds_of(sp):
    """Kinds of hard negative that apply to a caption, as often as they are to be drawn: what is learnt last, most."""
    o, kinds = sp["objs"], ["shape"] * 3
    if o[0][1]:
        kinds.append("color")
    if len(o) == 2 and o[0][1]:
        kinds += ["swapcolor"] * 2
    if len(o) == 1:
        kinds.append("count")
    if sp["rel"]:
        kinds += ["rel", "rel", "swapobj", "swapobj"]
    if o[0][2]:
        kinds.append("size")
    if sp["bg"]:
        kinds.append("bg")
    if len(o) == 2:
        kinds.append("drop")
    return kinds


def negative_of(sp, rng):
    """A hard negative caption; its kind follows kinds_of instead of data.negative's own odds."""
    for _ in range(12):
        want = rng.choice(kinds_of(sp))
        for _ in range(6):
            q, op = data.negative(sp, rng)
            if op == want:
                return q, op
    return data.negative(sp, rng)


def spec_for(rng, weights=CATW, split="train"):
    return data.rand_spec(rng, rng.choices(data.CATS, weights)[0], split)


# ----------------------------------------------------------------------------------------------- scenes as symbols
# The last number of an object is its flaw: minus the template error for a detected object; 0 for a clean rendered
# one, below -0.2 for one that is rendered damaged. The strict judge refuses objects below -0.2.


def clean(scene):
    return all(o[5] > -0.2 for o in scene["objs"])


def true_of(scene, sp):
    return clean(scene) and data.satisfies(scene, sp)


def quality(o):
    return 1 / (1 + math.exp(-(0.2 + o[5]) * 40)) if o[5] < 0 else 1.0


def scene_features(scenes):
    """Objects [N, 6, 88] (shape, colour, soft size, place, quality, bound pair), mask, background and count [N, 12]."""
    f = np.zeros((len(scenes), MAXOBJ, 88), np.float32)
    m = np.zeros((len(scenes), MAXOBJ), np.float32)
    g = np.zeros((len(scenes), 12), np.float32)
    for i, s in enumerate(scenes):
        b = s["bg"][0]
        g[i, data.BGS.index(b) if b in data.BGS else 4] = 1
        g[i, 5 + min(len(s["objs"]), 6)] = 1
        for j, o in enumerate(s["objs"][:MAXOBJ]):
            shape, color, r = data.SHAPES.index(o[0]), data.CNAMES.index(o[1]), o[4]
            m[i, j] = 1
            f[i, j, shape] = 1
            f[i, j, 8 + color] = 1
            f[i, j, 24 + shape * 8 + color] = 1
            # size and place are soft, so that a small error of the vision tower stays a small error
            f[i, j, 16:22] = math.tanh((r - data.BIG) / 1.2), (r - 12) / 4, o[2] / 32 - 1, o[3] / 32 - 1, quality(o), 1
    return torch.from_numpy(f), torch.from_numpy(m), torch.from_numpy(g)


def scene_for(sp, rng):
    """As data.rand_scene, but half of the position scenes come closer to the diagonal than the generator's."""
    scene = data.rand_scene(sp, rng)
    if sp["rel"] and rng.random() < 0.5:
        for _ in range(12):
            t = data.rand_scene(dict(sp, rel=None), rng)
            a, b = t["objs"][:2]
            dx, dy = abs(a[2] - b[2]), abs(a[3] - b[3])
            if data.relation(a, b) == sp["rel"] and max(dx, dy) > 1.12 * min(dx, dy):
                return t
    return scene


def free_place(objs, r, rng, skip=-1):
    """Where another object of radius r touches none of objs, or None."""
    m = r * 1.1 + 1
    for _ in range(20):
        cx, cy = rng.uniform(m, 64 - m), rng.uniform(m, 64 - m)
        if all(i == skip or math.hypot(cx - q[2], cy - q[3]) > 1.08 * (r + q[4]) + 2 for i, q in enumerate(objs)):
            return cx, cy
    return None


def mutate(scene, rng):
    """A scene that differs in one thing. For most captions of the first it is wrong; callers check with true_of."""
    o = [list(q) for q in scene["objs"]]
    bg = scene["bg"]
    ops = ["shape", "color", "add", "damage", "junk"]
    if len(o) > 1:
        ops += ["swap"] * 4 + ["swapcolor"] * 3 + ["drop"] * 2
    if len(o) == 2:
        ops += ["move"] * 3
    if len(o) == 1:
        ops += ["size", "bg"]
    op = rng.choice(ops)
    i = rng.randrange(len(o))
    j = (i + 1) % len(o)
    if op == "shape":
        o[i][0] = rng.choice([s for s in data.SHAPES if s != o[i][0]])
    elif op == "color":
        o[i][1] = rng.choice([c for c in data.CNAMES if c != o[i][1]])
    elif op == "damage":
        o[i][5] = -rng.uniform(0.3, 0.5)
    elif op == "swap":
        o[i][2:4], o[j][2:4] = o[j][2:4], o[i][2:4]
    elif op == "swapcolor":
        o[i][1], o[j][1] = o[j][1], o[i][1]
    elif op == "drop":
        del o[i]
    elif op == "move":
        p = free_place(o, o[i][4], rng, i)
        if p:
            o[i][2:4] = p
    elif op in ("add", "junk") and len(o) < MAXOBJ:
        r = rng.uniform(3.5, 7) if op == "junk" else rng.uniform(9.2, 11)
        p = free_place(o, r, rng)
        if p:
            like = rng.random() < 0.7
            shape, color = o[i][:2] if like else (rng.choice(data.SHAPES), rng.choice(data.CNAMES))
            o.append([shape, color, *p, r, 0.0])
    elif op == "size":
        r = rng.uniform(16, 20) if o[i][4] < data.BIG else rng.uniform(9.5, 11.5)
        m = r * 1.1 + 1
        o[i][4] = r
        o[i][2:4] = [min(max(v, m), 64 - m) for v in o[i][2:4]]
    elif op == "bg":
        bg = data.rand_background(rng.choice([b for b in data.BGS if b != bg[0]]), rng)
    return dict(objs=[tuple(q) for q in o], bg=bg)


# ----------------------------------------------------------------------------------------------- stage: symbols


class CaptionTower(nn.Module):
    def __init__(self, d=256):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(SPEC_DIM, d), nn.GELU(), nn.Linear(d, d), nn.GELU(), nn.LayerNorm(d), nn.Linear(d, DIM, bias=False)
        )

    def forward(self, f):
        return F.normalize(self.net(f), dim=-1)


class SceneTower(nn.Module):
    """Sums over objects and over both orders of a pair, so that 'which of the two is to the left' is one look-up."""

    def __init__(self, d=192):
        super().__init__()
        self.one = nn.Sequential(nn.Linear(88, d), nn.GELU(), nn.Linear(d, d))
        self.two = nn.Sequential(nn.Linear(80 + 80 + 4, d), nn.GELU(), nn.Linear(d, d))
        self.out = nn.Sequential(
            nn.Linear(2 * d + 12, 256), nn.GELU(), nn.LayerNorm(256), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, DIM, bias=False)
        )

    def forward(self, f, m, g):
        a = (self.one(f) * m[..., None]).sum(1)
        b = torch.zeros_like(a)
        pair = (m.sum(1) == 2).nonzero()[:, 0]  # relations are only ever said of two objects
        if len(pair):
            p = f[pair, :2]
            q = p.flip(1)
            u = (p - q)[..., 18:20]
            u = u / u.norm(dim=-1, keepdim=True).clamp(min=1e-3)
            axis = torch.tanh(4 * (u[..., :1].abs() - u[..., 1:].abs()))
            what = [torch.cat([z[..., :16], z[..., 24:]], -1) for z in (p, q)]
            h = torch.cat([*what, u, axis, axis * torch.sign(u.sum(-1, keepdim=True))], -1)
            b = b.index_add(0, pair, self.two(h).sum(1))
        return F.normalize(self.out(torch.cat([a, b, g], -1)), dim=-1)


class SymbolPool:
    """Scenes with one true caption, K hard negative captions and `altered` altered scenes each."""

    def __init__(self, n, seed, altered=5, split="train", weights=CATW):
        rng = random.Random(seed)
        self.specs = [spec_for(rng, weights, split) for _ in range(n)]
        self.scenes = [scene_for(s, rng) for s in self.specs]
        neg = [negative_of(sp, rng) for sp in self.specs for _ in range(K)]
        self.negatives = [q for q, _ in neg]
        self.ops = [[op for _, op in neg[i * K : i * K + K]] for i in range(n)]
        alt = [mutate(sc, rng) for sc in self.scenes for _ in range(altered)]
        wrong = [not true_of(t, self.specs[i // altered]) for i, t in enumerate(alt)]
        self.altered_wrong = torch.tensor(wrong).view(n, altered)
        self.pos = spec_features(self.specs)
        self.neg = spec_features(self.negatives).view(n, K, -1)
        self.scene = scene_features(self.scenes)
        self.altered = tuple(x.view(n, altered, *x.shape[1:]) for x in scene_features(alt))
        # captions can only hold for scenes with the same multiset of shapes, which saves most exact checks
        self.shapes = np.array([hash(tuple(sorted(o[0] for o in s["objs"]))) for s in self.scenes])
        self.asked = np.array(
            [hash(tuple(sorted([o[0] for o in s["objs"]] * (s["n"] if len(s["objs"]) == 1 else 1)))) for s in self.specs]
        )

    def false_negatives(self, idx):
        """[B, B] True where caption j also holds for scene i."""
        m = self.shapes[idx][:, None] == self.asked[idx][None]
        np.fill_diagonal(m, False)
        for i, j in zip(*np.nonzero(m)):
            m[i, j] = true_of(self.scenes[idx[i]], self.specs[idx[j]])
        return torch.from_numpy(m)


def by_kind(ops, wins):
    d = {}
    for row, w in zip(ops, wins):
        for o, c in zip(row, w):
            d.setdefault(o, []).append(c)
    return {k: round(float(np.mean(d[k])), 3) for k in data.OPS if k in d}


@torch.no_grad()
def pair_accuracy(v, pos, neg, ops):
    """Share of hard negative captions that score below the true one, altogether and by kind."""
    w = (v * pos).sum(-1, keepdim=True) > torch.einsum("bd,bkd->bk", v, neg)
    return round(w.float().mean().item(), 4), by_kind(ops, w.tolist())


def symbols(a):
    torch.manual_seed(a.seed)
    captions, scenes = CaptionTower(), SceneTower()
    scale = nn.Parameter(torch.tensor(math.log(10.0)))
    par = [*captions.parameters(), *scenes.parameters(), scale]
    opt = torch.optim.AdamW(par, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    seen = SymbolPool(1500, 22)
    held = SymbolPool(1500, 23, split="heldout", weights=CATW_HELDOUT)
    batch, every, log = 256, 150, []
    for step in range(a.steps):
        if step % every == 0:
            pool = SymbolPool(12000, 1000 + a.seed * 997 + step)
        idx = np.random.RandomState(a.seed * 100003 + step).choice(len(pool.specs), batch, False)
        for g in opt.param_groups:
            g["lr"] = 2e-3 * min(1, (step + 1) / 50) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / a.steps)))
        v, t, n = scenes(*(x[idx] for x in pool.scene)), captions(pool.pos[idx]), captions(pool.neg[idx])
        alt = scenes(*(x[idx].flatten(0, 1) for x in pool.altered)).view(batch, -1, DIM)
        # noise on the scene side: the vision tower will not hit its target exactly, so margins must be wide
        v = F.normalize(v + 0.5 * torch.randn_like(v) / DIM**0.5, dim=-1)
        s = scale.exp()
        among = (s * v @ t.T).masked_fill(pool.false_negatives(idx), -1e4)
        wrong_captions = s * torch.einsum("bd,bkd->bk", v, n)
        wrong_scenes = (s * torch.einsum("bd,bmd->bm", t, alt)).masked_fill(~pool.altered_wrong[idx], -1e4)
        y = torch.arange(batch)
        d = among.diagonal()[:, None]
        loss = (
            F.cross_entropy(torch.cat([among, wrong_captions], 1), y)
            + F.cross_entropy(torch.cat([among.T, wrong_scenes], 1), y)
            + F.cross_entropy(torch.cat([d, wrong_captions], 1), y * 0)
            + F.cross_entropy(torch.cat([d, wrong_scenes], 1), y * 0)
        )
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(par, 1.0)
        opt.step()
        with torch.no_grad():
            scale.clamp_(max=math.log(30))
        log.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == a.steps:
            for name, p in (("seen", seen), ("held out", held)):
                with torch.no_grad():
                    acc = pair_accuracy(scenes(*p.scene), captions(p.pos), captions(p.neg), p.ops)
                print(f"step {step + 1} loss {np.mean(log[-every:]):.4f} {name}", *acc, flush=True)
    torch.save(dict(caption=captions.state_dict(), scene=scenes.state_dict()), f"{a.out}/symbols.pt")


def load_symbols(out):
    s = torch.load(f"{out}/symbols.pt")
    captions, scenes = CaptionTower(), SceneTower()
    captions.load_state_dict(s["caption"])
    scenes.load_state_dict(s["scene"])
    return captions.eval().requires_grad_(False), scenes.eval().requires_grad_(False)


# ----------------------------------------------------------------------------------------------- the CLIP model


def build(tok, layers, width):
    from transformers import CLIPConfig, CLIPModel

    bos, eos = tok.bos_token_id, tok.eos_token_id
    text = dict(vocab_size=len(tok), hidden_size=128, intermediate_size=512, projection_dim=DIM, num_hidden_layers=4)
    text.update(num_attention_heads=4, max_position_embeddings=data.MAXLEN, hidden_act="quick_gelu")
    text.update(bos_token_id=bos, eos_token_id=eos, pad_token_id=eos)
    vision = dict(hidden_size=width, intermediate_size=4 * width, projection_dim=DIM, num_hidden_layers=layers)
    vision.update(num_attention_heads=width // 32, image_size=64, patch_size=8)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM)
    return CLIPModel._from_config(config, attn_implementation="eager")  # for so few tokens faster than SDPA


def embed_text(m, ids):
    """Embedding and the last hidden state at the end of the text."""
    h = m.text_model(input_ids=ids).pooler_output
    return F.normalize(m.text_projection(h), dim=-1), h


def tokenizer(path):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(path)


class Words:
    """The tokenizer works word by word, so every word is looked up once and the ids are put together here."""

    def __init__(self, tok):
        self.tok, self.memo = tok, {}

    def __call__(self, caps):
        out = torch.full((len(caps), LEN), self.tok.eos_token_id)
        for i, c in enumerate(caps):
            ids = [self.tok.bos_token_id]
            for w in c.split():
                if w not in self.memo:
                    self.memo[w] = self.tok(w).input_ids[1:-1]
                ids += self.memo[w]
            out[i, : len(ids)] = torch.tensor(ids)
        return out


def save_clip(m, tok, out):
    """transformers layout in half precision; the tokenizer as vocab.json and merges.txt."""
    copy.deepcopy(m).half().save_pretrained(out)
    os.chmod(f"{out}/model.safetensors", 0o644)
    for name in TOKENIZER_FILES:
        if os.path.abspath(tok.name_or_path) != os.path.abspath(out):
            shutil.copyfile(f"{tok.name_or_path}/{name}", f"{out}/{name}")
    preprocessor = dict(
        crop_size=dict(height=64, width=64), do_center_crop=True, do_convert_rgb=True, do_normalize=True, do_rescale=True,
        do_resize=True, feature_extractor_type="CLIPFeatureExtractor", image_processor_type="CLIPImageProcessor",
        image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3, rescale_factor=1 / 255, size=dict(shortest_edge=64),
        processor_class="CLIPProcessor",
    )  # fmt: skip
    with open(f"{out}/preprocessor_config.json", "w") as f:
        json.dump(preprocessor, f, indent=1)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz iterations in float32.

    torch.optim.Muon computes them in bfloat16, which most CPUs emulate slowly. Matrices of one shape go together.
    """

    def __init__(self, params, lr, weight_decay=0.0, momentum=0.95):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))

    @torch.no_grad()
    def step(self):
        for g in self.param_groups:
            shapes = {}
            for p in g["params"]:
                if p.grad is None:
                    continue
                st = self.state[p]
                if "m" not in st:
                    st["m"] = torch.zeros_like(p)
                st["m"].lerp_(p.grad, 1 - g["momentum"])
                u = p.grad.lerp(st["m"], g["momentum"])
                tall = p.shape[0] > p.shape[1]
                shapes.setdefault((min(p.shape), max(p.shape)), []).append((p, tall, u.T if tall else u))
            for (_, width), items in shapes.items():
                x = torch.stack([u for _, _, u in items])
                x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
                for _ in range(5):
                    y = x @ x.mT
                    x = 3.4445 * x + (-4.775 * y + 2.0315 * y @ y) @ x
                for (p, tall, _), u in zip(items, x):
                    p.mul_(1 - g["lr"] * g["weight_decay"])
                    p.add_(u.T if tall else u, alpha=-g["lr"] * 0.2 * width**0.5)


def optimizers(layers, rest, lr, weight_decay):
    """Muon for the matrices inside the layers, AdamW for everything else."""
    matrices = [p for p in layers if p.ndim == 2]
    others = [p for p in layers if p.ndim != 2] + list(rest)
    return [
        Muon(matrices, lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    ]


def apply(opts, loss, par, lr):
    for o in opts:
        for g in o.param_groups:
            g["lr"] = lr
        o.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(par, 2.0)
    for o in opts:
        o.step()


# ----------------------------------------------------------------------------------------------- stage: text

# subject shape, colour, size; object shape, colour; number; relation; background; shape and colour on the four sides
HEADS = [8, 9, 3, 9, 9, 4, 5, 5] + [9, 9] * 4


def parse_targets(specs):
    rows = []
    for sp in specs:
        ids = [(data.SHAPES.index(s), data.CNAMES.index(c) if c else 8) for s, c, _ in sp["objs"]]
        z = sp["objs"][0][2]
        sides = [(8, 8)] * 4
        if sp["rel"]:
            i = {"left": 0, "right": 1, "above": 2, "below": 3}[sp["rel"]]
            sides[i], sides[i ^ 1] = ids
        row = [*ids[0], 0 if z is None else 1 if z == "small" else 2, *(ids[1] if len(ids) > 1 else (8, 8)), sp["n"] - 1]
        row += [data.RELS.index(sp["rel"]) if sp["rel"] else 4, data.BGS.index(sp["bg"]) if sp["bg"] else 4]
        rows.append(row + [x for p in sides for x in p])
    return torch.tensor(rows)


class TextTest:
    """Hard negative captions in words, scored against the scene tower: no pixels."""

    def __init__(self, n, seed, words, split="train", weights=CATW):
        self.pool = SymbolPool(n, seed, split=split, weights=weights)
        rng = random.Random(seed + 1)
        self.pos = words([data.caption(s, rng) for s in self.pool.specs])
        self.neg = words([data.caption(q, rng) for q in self.pool.negatives])

    @torch.no_grad()
    def __call__(self, m, scenes):
        e = torch.cat([embed_text(m, x)[0] for x in torch.cat([self.pos, self.neg]).split(512)])
        n = len(self.pos)
        return pair_accuracy(scenes(*self.pool.scene), e[:n], e[n:].view(n, K, DIM), self.pool.ops)


def text(a):
    from transformers import CLIPModel

    torch.manual_seed(a.seed)
    tok = tokenizer(a.init)
    words = Words(tok)
    m = build(tok, a.layers, a.width)
    if os.path.exists(f"{a.init}/model.safetensors"):
        # an earlier text tower knows the words already, and the UNet knows its states
        old = CLIPModel.from_pretrained(a.init, torch_dtype=torch.float32)
        m.text_model.load_state_dict(old.text_model.state_dict())
    captions, scenes = load_symbols(a.out)
    heads = nn.Linear(128, sum(HEADS))
    layers = list(m.text_model.encoder.parameters())
    inside = {id(p) for p in layers}
    rest = [p for p in m.text_model.parameters() if id(p) not in inside]
    rest += [*m.text_projection.parameters(), *heads.parameters()]
    opts, par = optimizers(layers, rest, a.lr, 0.02), layers + rest
    seen = TextTest(500, 122, words)
    held = TextTest(500, 123, words, "heldout", CATW_HELDOUT)
    rng, log = random.Random(a.seed + 7), []
    for step in range(a.steps):
        specs = [spec_for(rng) for _ in range(128)]
        specs += [negative_of(s, rng)[0] for s in specs]
        target = captions(spec_features(specs))
        e, h = embed_text(m, words([data.caption(s, rng) for s in specs]))
        same = (target @ target.T > 0.999) & ~torch.eye(len(specs), dtype=torch.bool)
        nce = F.cross_entropy((20 * e @ target.T).masked_fill(same, -1e4), torch.arange(len(specs)))
        cos = (1 - (e * target).sum(-1)).mean()
        y = parse_targets(specs)
        parse = sum(F.cross_entropy(z, y[:, i]) for i, z in enumerate(heads(h).split(HEADS, 1)))
        apply(opts, nce + 4 * cos + 0.5 * parse, par, a.lr * min(1, (step + 1) / 30) * max(0.01, min(1, (1 - step / a.steps) / 0.5)))
        log.append((nce.item(), cos.item(), parse.item()))
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} contrast, distance, parse {np.mean(log[-50:], 0).round(4)}", flush=True)
    m.eval()
    print("seen", *seen(m, scenes), "\nheld out", *held(m, scenes), flush=True)
    save_clip(m, tok, f"{a.out}/clip_text")


# ----------------------------------------------------------------------------------------------- stage: vision


def render(scenes, rng):
    """As data.render, with colours a little off and outlines that wobble a little; damaged objects (flaw below -0.2)
    wobble badly or are a mixture of two shapes. Float [N, 3, 64, 64] in -1..1."""
    x0, y0 = data.grid()
    img = data.backgrounds(scenes)[:, None].repeat(1, 3, 1, 1)
    for k in range(MAXOBJ):
        have = [(i, q["objs"][k]) for i, q in enumerate(scenes) if len(q["objs"]) > k]
        for shape in data.SHAPES:
            it = [(i, o) for i, o in have if o[0] == shape]
            if not it:
                continue
            n = len(it)
            idx = torch.tensor([i for i, _ in it])
            bad = torch.tensor([o[5] < -0.2 for _, o in it])
            p = torch.tensor([o[2:5] for _, o in it])[:, :, None, None]
            color = torch.tensor([data.COLORS[o[1]] for _, o in it], dtype=torch.float32) + torch.randn(n, 3) * 6
            x, y = (x0 - p[:, 0]) / p[:, 2], (y0 - p[:, 1]) / p[:, 2]
            morph = bad & (torch.rand(n) < 0.35)
            size = torch.where(bad & ~morph, 0.25 + 0.2 * torch.rand(n), 0.05 * torch.rand(n))[:, None, None]
            f, ph = 2 + 3 * torch.rand(n, 2, 1, 1), 6.3 * torch.rand(n, 2, 1, 1)
            x, y = x + size * torch.sin(f[:, 0] * y + ph[:, 0]), y + size * torch.sin(f[:, 1] * x + ph[:, 1])
            d = data.sdf(shape, x, y)
            for j in morph.nonzero()[:, 0].tolist():
                m = rng.uniform(0.4, 0.6)
                other = rng.choice([q for q in data.SHAPES if q != shape])
                d[j] = (1 - m) * d[j] + m * data.sdf(other, x[j], y[j])
            alpha = (0.5 - d * p[:, 2]).clamp(0, 1)[:, None]
            img[idx] = img[idx] * (1 - alpha) + color[:, :, None, None] * alpha
    return img.clamp(0, 255) / 127.5 - 1


def augment(x, rng):
    """Blur, lower resolution, noise: the pictures to judge are generated, or not finished yet."""
    n = len(x)
    k = torch.tensor([1.0, 2, 1])
    k = (k[:, None] * k / 16).expand(3, 1, 3, 3)
    b = x
    for _ in range(rng.choice([1, 1, 2, 4])):
        b = F.conv2d(F.pad(b, (1, 1, 1, 1), mode="replicate"), k, groups=3)
    a = torch.rand(n, 1, 1, 1) * (torch.rand(n, 1, 1, 1) < 0.5)
    x = x * (1 - a) + b * a
    j = torch.rand(n) < 0.12
    if j.any():
        low = F.interpolate(x[j], scale_factor=1 / rng.choice([2, 2, 3]), mode="area")
        x[j] = F.interpolate(low, size=64, mode="bilinear")
    x = x + torch.randn_like(x) * (torch.rand(n, 1, 1, 1) ** 2 * 0.2) * (torch.rand(n, 1, 1, 1) < 0.5)
    stains = F.interpolate(torch.randn(n, 3, 8, 8), size=64, mode="bilinear")
    return x + stains * 0.08 * torch.rand(n, 1, 1, 1) * (torch.rand(n, 1, 1, 1) < 0.5)


PATCH = np.arange(8) * 8 + 4.0  # centres of the patches


def patch_targets(scenes):
    """[N, 64] shape and colour of the object that covers the patch (8 = none), [N, 64, 3] way to its centre, radius."""
    n = len(scenes)
    shape = np.full((n, 64), 8, np.int64)
    color = shape.copy()
    place = np.zeros((n, 64, 3), np.float32)
    for i, s in enumerate(scenes):
        for o in s["objs"]:
            dx, dy = np.broadcast_arrays(o[2] - PATCH[None], o[3] - PATCH[:, None])
            m = (dx**2 + dy**2 < (o[4] + 1.5) ** 2).reshape(-1)
            shape[i][m] = data.SHAPES.index(o[0])
            color[i][m] = data.CNAMES.index(o[1])
            place[i][m] = np.stack([dx.reshape(-1) / 8, dy.reshape(-1) / 8, np.full(64, o[4] / 8)], -1)[m]
    return torch.from_numpy(shape), torch.from_numpy(color), torch.from_numpy(place)


class Vision(nn.Module):
    """The vision tower, with the patch head two layers before the end; the head is dropped afterwards."""

    def __init__(self, m):
        super().__init__()
        self.v, self.proj = m.vision_model, m.visual_projection
        self.at = m.config.vision_config.num_hidden_layers - 2
        self.patch_head = nn.Linear(m.config.vision_config.hidden_size, 21)

    def forward(self, x):
        v = self.v
        h = v.pre_layrnorm(v.embeddings(x))
        for i, layer in enumerate(v.encoder.layers):
            h = layer(h, attention_mask=None)
            h = h[0] if isinstance(h, tuple) else h
            if i + 1 == self.at:
                p = self.patch_head(F.layer_norm(h[:, 1:], h.shape[-1:]))
        return F.normalize(self.proj(v.post_layernorm(h[:, 0])), dim=-1), p


class Labelled:
    """Pictures of the generator with what the judge's detector sees in them (evaluate.py label)."""

    def __init__(self, files):
        img, self.scenes, self.specs = [], [], []
        for f in sorted(files):
            d = np.load(f)
            for x, cap, s in zip(d["images"], d["captions"], json.loads(str(d["scenes"]))):
                if 1 <= len(s["objs"]) <= MAXOBJ:
                    img.append(x)
                    self.scenes.append(s)
                    self.specs.append(data.parse(str(cap)))
        self.img = torch.from_numpy(np.stack(img)).permute(0, 3, 1, 2).contiguous()


class Predictions:
    """A rolling pool of pictures as the sampler meets them under way: encoded, noised, and predicted back to x0 by
    one step of the UNet. Up to half way the prediction still shows the scene that went in."""

    def __init__(self, pipe, n):
        import train_unet

        self.unet = train_unet
        self.vae, self.tok, self.text = train_unet.load_parts(pipe)
        self.u = train_unet.load_unet(f"{pipe}/unet").eval()
        self.acp = train_unet.scheduler().alphas_cumprod
        self.n, self.items = n, []

    @torch.no_grad()
    def add(self, specs, scenes, caps, imgs, rng):
        f = self.vae.config.scaling_factor
        z = self.vae.encode(imgs.contiguous(memory_format=torch.channels_last)).latent_dist.sample() * f
        t = (torch.rand(len(z)) * 480).long()
        al = self.acp[t].view(-1, 1, 1, 1)
        x = al.sqrt() * z + (1 - al).sqrt() * torch.randn_like(z)
        v = self.u(x, t, self.unet.encode_text(self.text, data.tokenize(self.tok, caps))).sample
        y = self.vae.decode((al.sqrt() * x - (1 - al).sqrt() * v) / f).sample.clamp(-1, 1).contiguous()
        for item in zip(y, scenes, specs):
            if len(self.items) < self.n:
                self.items.append(item)
            else:
                self.items[rng.randrange(self.n)] = item


class VisionTest:
    def __init__(self, n, seed, split, captions, weights=CATW):
        self.pool = SymbolPool(n, seed, split=split, weights=weights)
        self.img = torch.from_numpy(data.render(self.pool.scenes)).permute(0, 3, 1, 2).float() / 127.5 - 1
        self.pos, self.neg = captions(self.pool.pos), captions(self.pool.neg)

    @torch.no_grad()
    def __call__(self, net):
        v = torch.cat([net(x)[0] for x in self.img.split(64)])
        return pair_accuracy(v, self.pos, self.neg, self.pool.ops)


def vision(a):
    torch.manual_seed(a.seed)
    captions, scene_tower = load_symbols(a.out)
    net = Vision(build(tokenizer(a.init), a.layers, a.width))
    layers = list(net.v.encoder.parameters())
    inside = {id(p) for p in layers}
    log_scale = nn.Parameter(torch.tensor(math.log(20.0)))
    rest = [p for p in net.parameters() if id(p) not in inside] + [log_scale]
    opts, par = optimizers(layers, rest, a.lr, 0.05), layers + rest
    step, spent, state = 0, 0.0, f"{a.out}/vision_state.pt"
    if os.path.exists(state):
        s = torch.load(state)
        net.load_state_dict(s["net"])
        for o, d in zip(opts, s["opt"]):
            o.load_state_dict(d)
        with torch.no_grad():
            log_scale.copy_(s["log_scale"])
        step, spent = s["step"], s["spent"]
        print("goes on from step", step, flush=True)

    def checkpoint():
        opt = [o.state_dict() for o in opts]
        torch.save(dict(net=net.state_dict(), opt=opt, log_scale=log_scale.detach(), step=step, spent=spent), state + ".new")
        os.replace(state + ".new", state)

    torch.manual_seed(a.seed + step)
    rng = random.Random(a.seed * 31337 + step)
    seen = VisionTest(768, 222, "train", captions)
    held = VisionTest(768, 223, "heldout", captions, CATW_HELDOUT)
    run = torch.compile(net, dynamic=False) if a.compile else net
    under_way, labelled = None, None
    batch, altered, extra = a.batch, a.batch * 5 // 16, a.batch * 3 // 16
    log, t0 = [], time.time()
    last = t0
    while spent < a.seconds:
        frac = spent / a.seconds
        if under_way is None and frac >= a.predictions_from:
            under_way = Predictions(a.pipe, 1500)
        files = glob.glob(f"{a.labelled}/label_*.npz") if a.labelled and step % 200 == 0 else []
        if files:
            labelled = Labelled(files)
            print("labelled pictures:", len(labelled.img), flush=True)
        # a fixed number of pictures: base scenes, altered copies of the first of them, pictures of the generator
        use_way = under_way is not None and len(under_way.items) >= 200
        base = batch - altered - extra * (use_way + (labelled is not None))
        specs = [spec_for(rng) for _ in range(base)]
        scenes = [scene_for(s, rng) for s in specs]
        changed = [mutate(scenes[i % base], rng) for i in range(altered)]
        changed = [t if t["objs"] else scenes[i % base] for i, t in enumerate(changed)]
        x = render(scenes + changed, rng)
        if under_way and (step % 4 == 0 or not use_way):
            k = 8
            under_way.add(specs[-k:], scenes[-k:], [data.caption(s, rng) for s in specs[-k:]], x[base - k : base], rng)
        x = augment(x, rng)
        scenes, specs = scenes + changed, specs + [None] * altered
        if use_way:
            y, sc, sp = zip(*rng.choices(under_way.items, k=extra))
            x, scenes, specs = torch.cat([x, torch.stack(y)]), scenes + list(sc), specs + list(sp)
        if labelled:
            ids = [rng.randrange(len(labelled.img)) for _ in range(extra)]
            x = torch.cat([x, augment(labelled.img[ids].float() / 127.5 - 1, rng)])
            scenes = scenes + [labelled.scenes[i] for i in ids]
            specs = specs + [labelled.specs[i] if true_of(labelled.scenes[i], labelled.specs[i]) else None for i in ids]
        own = [i for i, s in enumerate(specs) if s]  # pictures with a true caption; all serve as wrong ones for others
        true = [specs[i] for i in own]
        target, pos = scene_tower(*scene_features(scenes)), captions(spec_features(true))
        neg = captions(spec_features([negative_of(s, rng)[0] for s in true for _ in range(K)])).view(len(own), K, DIM)
        also = torch.tensor([[i != j and true_of(scenes[i], s) for i in range(len(scenes))] for j, s in zip(own, true)])
        shape, color, place = patch_targets(scenes)

        v, p = run(x)
        scale = log_scale.exp()
        mine = (v[own] * pos).sum(-1, keepdim=True)
        wrong = torch.einsum("bd,bkd->bk", v[own], neg)
        hard = F.cross_entropy(scale * torch.cat([mine, wrong], 1), torch.zeros(len(own), dtype=torch.long))
        among = F.cross_entropy((scale * pos @ v.T).masked_fill(also, -1e4), torch.tensor(own))
        cos = (1 - (v * target).sum(-1)).mean()
        # the same distance again, in the directions that captions ask for
        asked = torch.cat([pos, neg.flatten(0, 1)[::3]])
        scores = ((v - target) @ asked.T).pow(2).mean()
        few = torch.ones(9)
        few[8] = 0.3  # most patches are background
        on = (shape < 8).float()
        patch = (
            F.cross_entropy(p[..., :9].flatten(0, 1), shape.flatten(), few)
            + F.cross_entropy(p[..., 9:18].flatten(0, 1), color.flatten(), few)
            + ((p[..., 18:] - place).abs().sum(-1) * on).sum() / on.sum() * 0.5
        )
        loss = 5 * cos + 30 * scores + hard + 0.5 * among + (1.0 if frac < 0.8 else 0.4) * patch
        apply(opts, loss, par, a.lr * min(1, (step + 1) / 100) * max(0.01, min(1, (1 - frac) / 0.4)))
        with torch.no_grad():
            log_scale.clamp_(max=math.log(40))
        step += 1
        log.append((cos.item(), 100 * scores.item(), hard.item(), among.item(), patch.item()))
        now = time.time()
        spent, t0 = spent + now - t0, now
        if step % 100 == 0:
            print(f"{spent:.0f}s step {step} distance, scores, hard, among, patch {np.mean(log[-100:], 0).round(3)}", flush=True)
        if now - last > a.every or spent >= a.seconds:
            checkpoint()
            print("  seen", *seen(net), "\n  held out", *held(net), flush=True)
            last = t0 = time.time()


def join(a):
    from transformers import CLIPModel

    tok = tokenizer(a.init)
    m = build(tok, a.layers, a.width)
    t = CLIPModel.from_pretrained(f"{a.out}/clip_text", torch_dtype=torch.float32)
    m.text_model.load_state_dict(t.text_model.state_dict())
    m.text_projection.load_state_dict(t.text_projection.state_dict())
    s = torch.load(f"{a.out}/vision_state.pt")
    Vision(m).load_state_dict(s["net"])
    with torch.no_grad():
        m.logit_scale.copy_(s["log_scale"])
    save_clip(m, tok, f"{a.out}/shapes-clip")
    print("joined after", s["step"], "steps")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("stage", choices=["symbols", "text", "vision", "join"])
    ap.add_argument("--out", default="shapes-train/clip", help="folder for checkpoints and results")
    ap.add_argument("--init", default=os.path.join(WEIGHTS, "shapes-clip"), help="tokenizer and, if there, the text tower to start from")
    ap.add_argument("--pipe", default=os.path.join(WEIGHTS, "shapes-64"), help="generator for the pictures under way")
    ap.add_argument("--labelled", help="folder of evaluate.py label")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--steps", type=int, help="symbols: 1800, text: 320")
    ap.add_argument("--seconds", type=float, default=4500, help="vision: length of the schedule")
    ap.add_argument("--every", type=float, default=300, help="vision: seconds between checkpoints")
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--lr", type=float, help="text: 1.5e-3, vision: 2e-3")
    ap.add_argument("--layers", type=int, default=6)
    ap.add_argument("--width", type=int, default=128)
    ap.add_argument("--predictions-from", type=float, default=0.12, help="part of the schedule after which they are used")
    ap.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    a.steps = a.steps or (1800 if a.stage == "symbols" else 320)
    a.lr = a.lr or (1.5e-3 if a.stage == "text" else 2e-3)
    os.makedirs(a.out, exist_ok=True)
    torch.set_num_threads(a.threads)
    globals()[a.stage](a)


if __name__ == "__main__":
    main()
