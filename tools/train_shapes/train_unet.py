"""Train the UNet of shapes-64 (v-prediction) on freshly rendered scenes.

It goes on from the UNet of an existing pipeline (--pipe) or starts anew (--fresh). With --text, another text encoder
takes the old one's place: a linear map between the two is folded into the cross-attention first, so that the words need
not be learnt again. Latents come from a rolling pool, of which a few are replaced by new scenes at every step.

Seeded; writes a checkpoint and a complete half-precision pipeline to --out every few minutes, and goes on from the
checkpoint when started again.
"""
import argparse
import copy
import json
import os
import random
import shutil
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import data  # noqa: E402
import verifier  # noqa: E402

WEIGHTS = os.path.join(HERE, "..", "..", "weights")
# How often each category is drawn; the weakest most often.
CATW = [6, 20, 10, 20, 32, 6, 6]


def build_unet(channels=(48, 96, 160)):
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    u = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=tuple(channels),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128, attention_head_dim=(2, 3, 5), norm_num_groups=16,
    )  # fmt: skip
    u.set_attn_processor(AttnProcessor())  # explicit softmax: on a CPU its backward is faster than that of SDPA
    return u.to(memory_format=torch.channels_last)


def scheduler():
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
    )  # fmt: skip


def load_unet(path):
    from diffusers import UNet2DConditionModel

    old = UNet2DConditionModel.from_pretrained(path, torch_dtype=torch.float32)
    u = build_unet(old.config.block_out_channels)
    u.load_state_dict(old.state_dict())
    return u


def load_parts(pipe, text=None):
    """Autoencoder, tokenizer and text encoder (of the folder `text`, if given)."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

    vae = AutoencoderKL.from_pretrained(f"{pipe}/vae", torch_dtype=torch.float32).eval()
    tok = CLIPTokenizer.from_pretrained(f"{pipe}/tokenizer")
    te = CLIPTextModel.from_pretrained(text or f"{pipe}/text_encoder", torch_dtype=torch.float32, attn_implementation="eager")
    return vae.to(memory_format=torch.channels_last), tok, te.eval()


@torch.no_grad()
def encode_text(te, ids):
    return te(input_ids=ids).last_hidden_state


def to_x(pictures):
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def spec_for(rng):
    return data.rand_spec(rng, rng.choices(data.CATS, CATW)[0])


@torch.no_grad()
def remap(u, old, new, tok, n=3000):
    """Fold the least-squares map from the new text encoder's states to the old one's into the cross-attention of u."""
    rng = random.Random(11)
    ids = data.tokenize(tok, [data.caption(spec_for(rng), rng) for _ in range(n)] + [""] * 20)
    a, b = (torch.cat([encode_text(te, x) for x in ids.split(256)]).flatten(0, 1) for te in (new, old))
    w = torch.linalg.solve(a.T @ a + 0.01 * len(a) / 128 * torch.eye(128), a.T @ b)
    print("states not explained by the map: %.3f" % ((a @ w - b).pow(2).mean() / b.var(0).mean()).item(), flush=True)
    for name, m in u.named_modules():
        if name.endswith("attn2"):
            for k in (m.to_k, m.to_v):
                k.weight.copy_(k.weight @ w.T)


class Pool:
    """Latents of rendered scenes with their caption embeddings, replaced in turn."""

    def __init__(self, n, seed, vae, tok, te):
        self.rng = random.Random(seed)
        self.vae, self.tok, self.te = vae, tok, te
        self.known, self.emb = {}, []
        self.z = torch.empty(n, 4, 16, 16)
        self.e = torch.zeros(n, dtype=torch.long)
        self.at = 0
        while self.at < n:
            self.add(100)

    @torch.no_grad()
    def add(self, k):
        specs = [spec_for(self.rng) for _ in range(k)]
        pictures = data.render([data.rand_scene(s, self.rng) for s in specs])
        z = self.vae.encode(to_x(pictures)).latent_dist.sample() * self.vae.config.scaling_factor
        caps = [data.caption(s, self.rng) for s in specs]
        new = [c for c in dict.fromkeys(caps) if c not in self.known]
        if new:
            for c, e in zip(new, encode_text(self.te, data.tokenize(self.tok, new))):
                self.known[c] = len(self.emb)
                self.emb.append(e.half())
        for i in range(k):
            j = self.at % len(self.z)
            self.at += 1
            self.z[j], self.e[j] = z[i], self.known[caps[i]]

    def batch(self, idx):
        return self.z[idx], torch.stack([self.emb[i] for i in self.e[idx].tolist()]).float()


def save_pipeline(out, u, vae, tok, te):
    """A StableDiffusionPipeline folder in half precision, without paths of this machine in it."""
    from diffusers import StableDiffusionPipeline

    p = StableDiffusionPipeline(
        vae=copy.deepcopy(vae), text_encoder=copy.deepcopy(te), tokenizer=tok, unet=copy.deepcopy(u), scheduler=scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    p.to(torch.float16).save_pretrained(out)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(f"{tok.name_or_path}/{name}", f"{out}/tokenizer/{name}")
    clean_folder(out)


def clean_folder(out):
    """Drop what names a machine's paths, and the tokenizer.json that vocab.json and merges.txt make superfluous."""
    for root, _, files in os.walk(out):
        for name in files:
            path = os.path.join(root, name)
            if name == "tokenizer.json":
                os.remove(path)
            elif name.endswith(".json") and name != "vocab.json":
                with open(path) as f:
                    d = json.load(f)
                drop = [k for k in ("_name_or_path", "is_local", "local_files_only") if k in d]
                if drop:
                    with open(path, "w") as f:
                        json.dump({k: v for k, v in d.items() if k not in drop}, f, indent=2)
                        f.write("\n")


@torch.no_grad()
def sample(u, vae, emb, unc, steps=20, cfg=3.0, seed=0):
    s = scheduler()
    s.set_timesteps(steps)
    x = torch.randn(len(emb), 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    for t in s.timesteps:
        both = torch.cat([x, x]).contiguous(memory_format=torch.channels_last)
        a, b = u(both, t, torch.cat([unc.expand(len(emb), -1, -1), emb])).sample.chunk(2)
        x = s.step(a + cfg * (b - a), t, x).prev_sample
    im = torch.cat([vae.decode(z / vae.config.scaling_factor).sample for z in x.split(16)])
    return (im.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def progress_prompts(per):
    rng = random.Random(5)
    out = []
    for c in data.CATS:
        for _ in range(per):
            sp = data.rand_spec(rng, c, "all")
            out.append(data.caption(sp if c == "background" else dict(sp, bg=None), rng, True))
    return out


def train(a):
    torch.manual_seed(a.seed)
    vae, tok, te = load_parts(a.pipe, a.text)
    u = build_unet(a.channels) if a.fresh else load_unet(f"{a.pipe}/unet")
    if a.text and not a.fresh:
        remap(u, load_parts(a.pipe)[2], te, tok)
    par = list(u.parameters())
    opt = torch.optim.AdamW(par, lr=a.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    ema = [p.detach().clone() for p in par]
    step, spent, state = 0, 0.0, f"{a.out}/unet_state.pt"
    if os.path.exists(state):
        s = torch.load(state)
        u.load_state_dict(s["u"])
        ema, step, spent = s["ema"], s["step"], s["spent"]
        opt.load_state_dict(s["opt"])
        print("goes on from step", step, flush=True)
    torch.manual_seed(a.seed + step)
    pool = Pool(a.pool, a.seed * 7919 + step, vae, tok, te)
    unc = encode_text(te, data.tokenize(tok, [""]))
    acp = scheduler().alphas_cumprod
    caps = progress_prompts(a.per)
    emb = encode_text(te, data.tokenize(tok, caps)) if caps else None

    def swap():
        for p, q in zip(par, ema):
            p.data, q.data = q.data, p.data

    def save():
        torch.save(dict(u=u.state_dict(), ema=ema, opt=opt.state_dict(), step=step, spent=spent), state + ".new")
        os.replace(state + ".new", state)
        swap()
        save_pipeline(f"{a.out}/shapes-64", u, vae, tok, te)
        ok = verifier.verify(sample(u, vae, emb, unc), caps) if a.per else []
        swap()
        by = {c: round(float(np.mean(ok[i * a.per : (i + 1) * a.per])), 2) for i, c in enumerate(data.CATS) if a.per}
        print(f"  saved; right {np.mean(ok) if a.per else 0:.3f} of {len(ok)}", by, flush=True)

    log, t0 = [], time.time()
    last = t0
    while spent < a.seconds:
        pool.add(a.new)
        z, e = pool.batch(torch.randint(0, len(pool.z), (a.batch,)))
        e = torch.where(torch.rand(a.batch, 1, 1) < 0.1, unc, e)  # caption dropout, for guidance
        # noise levels are stratified, and the high ones, where the layout is decided, drawn more often
        t = (((torch.arange(a.batch) + torch.rand(a.batch)) / a.batch) ** a.tilt * 1000).long().clamp(max=999)
        al = acp[t].view(-1, 1, 1, 1)
        eps = torch.randn_like(z)
        x = (al.sqrt() * z + (1 - al).sqrt() * eps).contiguous(memory_format=torch.channels_last)
        loss = F.mse_loss(u(x, t, e).sample, al.sqrt() * eps - (1 - al).sqrt() * z)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(par, 1.0)
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1, (step + 1) / 100) * max(0.01, 1 - max(0, spent / a.seconds - 0.3) / 0.7)
        opt.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(ema, par, 1 - min(0.998, (1 + step) / (10 + step)))
        log.append(loss.item())
        now = time.time()
        spent, t0 = spent + now - t0, now
        if step % 50 == 0:
            print(f"{spent:.0f}s step {step} loss {np.mean(log[-100:]):.4f} lr {g['lr']:.1e}", flush=True)
        if now - last > a.every or spent >= a.seconds:
            save()
            last = t0 = time.time()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", default="shapes-train/unet", help="folder for the checkpoint and the pipeline")
    ap.add_argument("--pipe", default=os.path.join(WEIGHTS, "shapes-64"), help="pipeline to go on from")
    ap.add_argument("--text", help="folder of another text encoder (or CLIP) to use from now on")
    ap.add_argument("--fresh", action="store_true", help="start from random weights")
    ap.add_argument("--channels", type=int, nargs=3, default=(48, 96, 160), help="of the three levels, with --fresh; multiples of 16")
    ap.add_argument("--seconds", type=float, default=4500, help="length of the schedule")
    ap.add_argument("--every", type=float, default=600, help="seconds between checkpoints")
    ap.add_argument("--lr", type=float, default=8e-4)
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--tilt", type=float, default=0.65, help="1: all noise levels alike; less: more often high ones")
    ap.add_argument("--pool", type=int, default=4000, help="latents in the pool")
    ap.add_argument("--new", type=int, default=12, help="of them replaced at every step")
    ap.add_argument("--per", type=int, default=8, help="prompts per category judged at every checkpoint")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    torch.set_num_threads(a.threads)
    train(a)


if __name__ == "__main__":
    main()
