"""Train the models of the MNIST experiment: an unconditional denoiser and the classifier that is its reward.

The denoiser is a UNet2DModel on digits of 16x16 (predicts the noise; DDIMScheduler with the defaults of diffusers), saved
as a pipeline folder in half precision: OUT/unet-16. The classifier has two 5x5 convolutions with 16 and 32 channels, each
followed by ReLU and a 2x2 max-pool, and one linear layer: OUT/classifier, as `kac score --reward classifier=DIR:LABEL`
reads it.

Seeded; writes a checkpoint every few minutes and goes on from it when started again.
"""
import argparse
import json
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import mnist_data  # noqa: E402

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def build_unet(channels):
    from diffusers import UNet2DModel

    n = len(channels)
    u = UNet2DModel(
        sample_size=mnist_data.SIZE, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=tuple(channels),
        down_block_types=("DownBlock2D",) * (n - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (n - 1), attention_head_dim=16, norm_num_groups=8,
    )  # fmt: skip
    return u.to(memory_format=torch.channels_last)


def scheduler():
    from diffusers import DDIMScheduler

    return DDIMScheduler()


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 16, 5, padding=2)
        self.conv2 = torch.nn.Conv2d(16, 32, 5, padding=2)
        self.fc = torch.nn.Linear(32 * (mnist_data.SIZE // 4) ** 2, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.fc(F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1))


def clean_json(folder):
    """Drop what names a machine's paths."""
    for root, _, files in os.walk(folder):
        for name in (f for f in files if f.endswith(".json")):
            path = os.path.join(root, name)
            with open(path) as f:
                d = json.load(f)
            with open(path, "w") as f:
                json.dump({k: v for k, v in d.items() if k not in ("_name_or_path", "is_local", "local_files_only")}, f, indent=2)
                f.write("\n")


def save_pipeline(out, channels, state):
    from diffusers import DDIMPipeline

    u = build_unet(channels)
    u.load_state_dict(state)
    DDIMPipeline(unet=u, scheduler=scheduler()).to(torch.float16).save_pretrained(out)
    clean_json(out)


@torch.no_grad()
def sample(u, n, steps=50, eta=1.0, seed=0):
    s = scheduler()
    s.set_timesteps(steps)
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, mnist_data.SIZE, mnist_data.SIZE, generator=gen)
    for t in s.timesteps:
        x = s.step(u(x.contiguous(memory_format=torch.channels_last), t).sample, t, x, eta=eta, generator=gen).prev_sample
    return (x.clamp(-1, 1) + 1) / 2


def sheet(path, x, columns=16):
    from PIL import Image

    n, size = len(x) // columns, x.shape[-1]
    grid = x[: n * columns].view(n, columns, size, size).permute(0, 2, 1, 3).reshape(n * size, columns * size)
    picture = Image.fromarray((grid * 255).round().byte().numpy())
    picture.resize((picture.width * 3, picture.height * 3), Image.NEAREST).save(path)


def train_classifier(a):
    from safetensors.torch import save_file

    torch.manual_seed(a.seed)
    x, y = mnist_data.load(a.data, "train")
    net = Classifier()
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    for epoch in range(a.epochs):
        order = torch.randperm(len(x))
        for i in order.split(128):
            loss = F.cross_entropy(net(x[i]), y[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
    net.eval()
    test, label = mnist_data.load(a.data, "t10k")
    with torch.no_grad():
        right = (net(test).argmax(1) == label).float().mean().item()
    print(f"classifier: {100 * right:.2f} % of the test pictures", flush=True)
    folder = f"{a.out}/classifier"
    os.makedirs(folder, exist_ok=True)
    save_file(net.state_dict(), f"{folder}/model.safetensors")
    config = {
        "model_type": "kac-cnn",
        "input": {"channels": 1, "size": mnist_data.SIZE, "filter": "bilinear", "mean": 0, "std": 1},
        "layers": [{"conv": "conv1", "act": "relu", "padding": 2}, {"max_pool": 2},
                   {"conv": "conv2", "act": "relu", "padding": 2}, {"max_pool": 2}, {"linear": "fc"}],
        "labels": DIGITS,
    }  # fmt: skip
    with open(f"{folder}/config.json", "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")
    return net


def load_classifier(folder):
    from safetensors.torch import load_file

    net = Classifier()
    net.load_state_dict(load_file(f"{folder}/model.safetensors"))
    return net.eval()


def train_unet(a, classifier):
    torch.manual_seed(a.seed)
    pictures = mnist_data.load(a.data, "train")[0] * 2 - 1
    u = build_unet(a.channels)
    par = list(u.parameters())
    opt = torch.optim.AdamW(par, lr=a.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    ema = [p.detach().clone() for p in par]
    step, spent, path = 0, 0.0, f"{a.out}/unet_state.pt"
    if os.path.exists(path):
        s = torch.load(path)
        u.load_state_dict(s["u"])
        opt.load_state_dict(s["opt"])
        ema, step, spent = s["ema"], s["step"], s["spent"]
        print("goes on from step", step, flush=True)
    torch.manual_seed(a.seed + step)
    acp = scheduler().alphas_cumprod

    def swap():
        for p, q in zip(par, ema):
            p.data, q.data = q.data, p.data

    def save():
        torch.save(dict(u=u.state_dict(), ema=ema, opt=opt.state_dict(), step=step, spent=spent), path + ".new")
        os.replace(path + ".new", path)
        swap()
        u.eval()
        save_pipeline(f"{a.out}/unet-16", a.channels, u.state_dict())
        x = sample(u, 128)
        u.train()
        swap()
        sheet(f"{a.out}/samples.png", x)
        with torch.no_grad():
            p = classifier(x).softmax(1)
        counts = torch.bincount(p.argmax(1), minlength=10).tolist()
        print(f"  saved; median confidence {p.amax(1).median():.3f}, mean {p.amax(1).mean():.3f}, digits {counts}", flush=True)

    log, now = [], time.process_time()
    last = now
    while spent < a.seconds:
        x0 = pictures[torch.randint(0, len(pictures), (a.batch,))]
        t = ((torch.arange(a.batch) + torch.rand(a.batch)) / a.batch * 1000).long().clamp(max=999)  # stratified
        al = acp[t].view(-1, 1, 1, 1)
        eps = torch.randn_like(x0)
        x = (al.sqrt() * x0 + (1 - al).sqrt() * eps).contiguous(memory_format=torch.channels_last)
        loss = F.mse_loss(u(x, t).sample, eps)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(par, 1.0)
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1, (step + 1) / 50) * max(0.02, 1 - max(0, spent / a.seconds - 0.3) / 0.7)
        opt.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(ema, par, 1 - min(0.998, (1 + step) / (10 + step)))
        log.append(loss.item())
        spent, now = spent + time.process_time() - now, time.process_time()
        if step % 50 == 0:
            print(f"{spent:.0f}s step {step} loss {np.mean(log[-100:]):.4f} lr {g['lr']:.1e}", flush=True)
        if now - last > a.every or spent >= a.seconds:
            save()
            last = now = time.process_time()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", required=True, help="folder of the four IDX files, gzip")
    ap.add_argument("--out", default="mnist-train", help="folder for the checkpoint, the pipeline and the classifier")
    ap.add_argument("--channels", type=int, nargs="+", default=(16, 32, 64), help="of the levels; multiples of 8")
    ap.add_argument("--seconds", type=float, default=600, help="length of the denoiser's schedule, processor time")
    ap.add_argument("--every", type=float, default=120, help="seconds between checkpoints")
    ap.add_argument("--epochs", type=int, default=4, help="of the classifier")
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    have = os.path.exists(f"{a.out}/classifier/config.json")
    train_unet(a, load_classifier(f"{a.out}/classifier") if have else train_classifier(a))


if __name__ == "__main__":
    main()
