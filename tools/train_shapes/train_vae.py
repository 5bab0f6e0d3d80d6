"""Train the autoencoder of shapes-64 (64x64x3 pictures, 16x16x4 latents).

    full      encoder and decoder from random weights; the latent channels are centred and scaled alike at the end
    decoder   only the decoder goes on learning, so latents keep their meaning and no UNet has to be trained again.
              It learns from latents as the UNet leaves them (noised, then predicted back in one step), with the clean
              picture as the aim: outlines and colours come out cleaner than the latents are.

Seeded; writes a checkpoint to --out every few minutes and goes on from it when started again.
"""
import argparse
import json
import math
import os
import random
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import data  # noqa: E402
import train_unet  # noqa: E402

WEIGHTS = os.path.join(HERE, "..", "..", "weights")


def build():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=64,
    )  # fmt: skip


def picture_loss(y, x):
    """Objects cover few pixels: they and their rim weigh 9 against the background's 1, or colour is learnt very late."""
    on = (x.amax(1, keepdim=True) - x.amin(1, keepdim=True) > 0.3).float()
    w = 1 + 8 * F.max_pool2d(on, 3, 1, 1)
    d = y - x
    return (w * (d.abs() + 0.25 * d**2)).sum() / (3 * w.sum())


def psnr(y, x):
    return float((-10 * torch.log10(((y.clamp(-1, 1) - x) ** 2).mean((1, 2, 3)) / 4)).mean())


@torch.no_grad()
def even_channels(vae, x):
    """Fold per-channel centring and equal spread into the 1x1 convolutions, so that one scaling factor suits all."""
    z = torch.cat([vae.encode(p).latent_dist.mean for p in x.split(64)])
    mu, sd = z.mean((0, 2, 3)), z.std((0, 2, 3))
    s0 = sd.mean()
    q, p = vae.quant_conv, vae.post_quant_conv
    k = torch.cat([s0 / sd, torch.ones(4)])
    q.weight.mul_(k[:, None, None, None])
    q.bias.mul_(k)
    q.bias[:4] -= mu * s0 / sd
    q.bias[4:] += 2 * torch.log(s0 / sd)
    p.bias += (p.weight[:, :, 0, 0] * mu).sum(1)
    p.weight.mul_((sd / s0)[None, :, None, None])
    z = torch.cat([vae.encode(p).latent_dist.mean for p in x.split(64)])
    vae.register_to_config(scaling_factor=float(1 / z.std()))


def pictures(specs, rng):
    return train_unet.to_x(data.render([data.rand_scene(s, rng) for s in specs]))


def train(a):
    from diffusers import AutoencoderKL

    torch.manual_seed(a.seed)
    decoder_only = a.what == "decoder"
    if decoder_only:
        vae, tok, te = train_unet.load_parts(a.pipe)
        unet = train_unet.load_unet(f"{a.pipe}/unet").eval().requires_grad_(False)
        acp = train_unet.scheduler().alphas_cumprod
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    else:
        vae = build().to(memory_format=torch.channels_last)
    f = vae.config.scaling_factor
    par = [p for p in vae.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(par, lr=a.lr, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    step, spent, state = 0, 0.0, f"{a.out}/vae_state.pt"
    if os.path.exists(state):
        s = torch.load(state)
        vae.load_state_dict(s["vae"])
        opt.load_state_dict(s["opt"])
        step, spent = s["step"], s["spent"]
        print("goes on from step", step, flush=True)
    torch.manual_seed(a.seed + step)
    rng = random.Random(a.seed * 7919 + step)
    test = pictures([data.rand_spec(rng, split="all") for _ in range(128)], random.Random(12))

    @torch.no_grad()
    def under_way(x, specs):
        """Latents of x, half of them as the UNet predicts them from noised ones."""
        d = vae.encode(x).latent_dist
        z = d.mean + d.std * torch.randn_like(d.mean)
        h = len(x) // 2
        t = (torch.rand(h) * a.noise).long()
        al = acp[t].view(-1, 1, 1, 1)
        n = (al.sqrt() * z[:h] * f + (1 - al).sqrt() * torch.randn_like(z[:h])).contiguous(memory_format=torch.channels_last)
        v = unet(n, t, train_unet.encode_text(te, data.tokenize(tok, [data.caption(s, rng) for s in specs[:h]]))).sample
        z[:h] = (al.sqrt() * n - (1 - al).sqrt() * v) / f
        z[h:] += 0.05 / f * torch.rand(len(x) - h, 1, 1, 1) * torch.randn_like(z[h:])
        return z.contiguous(memory_format=torch.channels_last)

    def save():
        torch.save(dict(vae=vae.state_dict(), opt=opt.state_dict(), step=step, spent=spent), state + ".new")
        os.replace(state + ".new", state)
        with torch.no_grad():
            y = torch.cat([vae.decode(vae.encode(p).latent_dist.mean).sample for p in test.split(16)])
        print(f"  saved; reconstruction {psnr(y, test):.2f} dB", flush=True)

    log, t0 = [], time.time()
    last = t0
    while spent < a.seconds:
        specs = [train_unet.spec_for(rng) if rng.random() < 0.5 else data.rand_spec(rng) for _ in range(a.batch)]
        x = pictures(specs, rng)
        if decoder_only:
            loss = picture_loss(vae.decode(under_way(x, specs)).sample, x)
        else:
            d = vae.encode(x).latent_dist
            y = vae.decode(d.mean + d.std * torch.randn_like(d.mean)).sample
            loss = picture_loss(y, x) + 1e-4 * 0.5 * (d.mean**2 + d.var - 1 - d.logvar).mean()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(par, 1.0)
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1, (step + 1) / 80) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, spent / a.seconds))))
        opt.step()
        step += 1
        log.append(loss.item())
        now = time.time()
        spent, t0 = spent + now - t0, now
        if step % 50 == 0:
            print(f"{spent:.0f}s step {step} loss {np.mean(log[-50:]):.4f}", flush=True)
        if now - last > a.every or spent >= a.seconds:
            save()
            last = t0 = time.time()
    vae.eval()
    if not decoder_only:
        even_channels(vae, pictures([data.rand_spec(rng) for _ in range(1024)], rng))
    vae.half().save_pretrained(f"{a.out}/vae")
    train_unet.clean_folder(f"{a.out}/vae")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=["full", "decoder"])
    ap.add_argument("--out", default="shapes-train/vae", help="folder for the checkpoint and the autoencoder")
    ap.add_argument("--pipe", default=os.path.join(WEIGHTS, "shapes-64"), help="decoder: pipeline to go on from")
    ap.add_argument("--seconds", type=float, default=600)
    ap.add_argument("--every", type=float, default=120)
    ap.add_argument("--lr", type=float, help="full: 2.5e-3, decoder: 6e-4")
    ap.add_argument("--batch", type=int, default=12)
    ap.add_argument("--noise", type=float, default=350, help="decoder: up to which of the 1000 noise levels")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    a.lr = a.lr or (2.5e-3 if a.what == "full" else 6e-4)
    os.makedirs(a.out, exist_ok=True)
    torch.set_num_threads(a.threads)
    train(a)


if __name__ == "__main__":
    main()
