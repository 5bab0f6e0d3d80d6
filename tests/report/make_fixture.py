#!/usr/bin/env python3
"""Writes a small run folder as `kac generate` leaves it: usage make_fixture.py FOLDER. Standard library only.

Two prompts (one hostile), 4 particles, 6 steps, resampled after steps 2 and 4. The pictures are discs that sharpen with the steps.
"""
import json
import math
import os
import random
import struct
import sys
import zlib

N, K = 4, 6
PROMPTS = ["a red circle above a blue square", "<script>alert('x')</script> & \"quotes\" \u202e"]
COLOURS = [(214, 60, 50), (60, 110, 200), (70, 150, 80), (200, 150, 40)]


def png(path, size, colour, noise, rng):
    rows = []
    for y in range(size):
        row = bytearray([0])
        for x in range(size):
            inside = math.hypot(x - size / 2, y - size / 2.6) < size / 4
            base = colour if inside else (235, 232, 225)
            row += bytes(max(0, min(255, int(c + rng.gauss(0, 160) * noise))) for c in base)
        rows.append(bytes(row))
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)) +
                chunk(b"IDAT", zlib.compress(b"".join(rows), 9)) + chunk(b"IEND", b""))


def normalised(log_weights):
    top = max(log_weights)
    w = [math.exp(v - top) for v in log_weights]
    return [v / sum(w) for v in w]


def group_events(folder, group, rng, size):
    lines, images = [], []
    eves, rewards, log_weights, log_z = list(range(N)), [0.0] * N, [0.0] * N, 0.0
    for step in range(K + 1):
        new = [0.35 * step / K + 0.1 * e / N + rng.gauss(0, 0.03) for e in eves]
        log_weights = [w + 10 * (r - o) for w, r, o in zip(log_weights, new, rewards)]
        rewards = new
        w = normalised(log_weights)
        ess = 1 / sum(v * v for v in w)
        resampled = step in (2, 4)
        ancestors = sorted(rng.choices(range(N), weights=w, k=N)) if resampled else list(range(N))
        if step < K:
            for i in range(N):
                name = "previews/group_%02d_step_%02d_particle_%02d.png" % (group, step, i)
                png(os.path.join(folder, name), size, COLOURS[eves[i]], 1 - (step + 1) / K, rng)
                lines.append({"event": "preview", "ms": 100 * step, "i_step": step, "group": group, "particle": i, "file": name})
        lines.append({"event": "step", "ms": 100 * step + 50, "i_step": step, "n_steps": K, "group": group, "n_groups": 2,
                      "scored": True, "resampled": resampled, "ancestors": ancestors, "eves": eves, "log_weights": log_weights,
                      "rewards": rewards, "ess": ess, "log_z": log_z, "counts": {"denoiser": N * step, "decoder": N, "reward": N}})
        if resampled:
            log_z += math.log(sum(math.exp(v) for v in log_weights) / N)
            eves, rewards = [eves[a] for a in ancestors], [rewards[a] for a in ancestors]
            log_weights = [0.0] * N
    order = sorted(range(N), key=lambda i: -rewards[i])
    for i in range(N):
        name = "group_%02d_particle_%02d.png" % (group, i)
        png(os.path.join(folder, name), size, COLOURS[eves[i]], 0, rng)
        lines.append({"event": "image", "ms": 700, "group": group, "particle": i, "file": name})
        images.append({"file": name, "group": group, "particle": i, "rank": order.index(i), "reward": rewards[i],
                       "rewards": {"clip": rewards[i], "jpeg": 1.5 + i}, "log_weight": log_weights[i],
                       "weight": normalised(log_weights)[i], "eve": eves[i], "seed": 7})
    return lines, images


def main():
    folder, size = sys.argv[1], 24
    rng = random.Random(7)
    os.makedirs(os.path.join(folder, "previews"), exist_ok=True)
    lines, images = [{"event": "start", "ms": 0, "i_step": 0}], []
    for group in range(len(PROMPTS)):
        more_lines, more_images = group_events(folder, group, rng, size)
        lines += more_lines
        images += more_images
    lines.append({"event": "end", "ms": 800, "state": "finished"})
    run = {"kac_run": 1, "version": "0.1.0", "state": "finished", "started": "2026-01-31T12:00:00Z",
           "command": ["kac", "generate", PROMPTS[0], "-p", PROMPTS[1], "--steer", "fk", "--particles", "4", "--steps", "6", "-s", "7"],
           "options": {"prompt": PROMPTS, "steps": "6", "cfg-scale": "3", "steer": "fk", "particles": "4", "lambda": "10",
                       "ess-threshold": "0.5", "resampling": "ssp", "seed": "7", "dtype": "f32"},
           "given": ["prompt", "steps", "steer", "particles", "seed"],
           "model": {"path": "weights/shapes-64", "class": "StableDiffusionPipeline",
                     "files": [{"path": "unet/diffusion_pytorch_model.safetensors", "bytes": 14000000, "sha256": "0" * 64}]},
           "machine": {"backend": "cpu", "dtype": "f32", "threads": 2, "cpu": "a processor", "onednn": "2.6.3"},
           "seed": 7, "n_steps": K, "n_particles": N, "width": size, "height": size, "steer": "fk", "sampler": "ddim",
           "groups": [{"prompt": p, "negative_prompt": ""} for p in PROMPTS],
           "rewards": [{"name": "clip=weights/shapes-clip", "weight": 1}, {"name": "jpeg", "weight": -0.1}],
           "images": images, "log_z": [0.41, 0.37],
           "counts": {"denoiser": 48, "denoiser_calls": 12, "decoder": 56, "reward": 56},
           "seconds": {"load": 0.081, "text": 0.012, "denoiser": 0.42, "decoder": 0.2, "reward": 0.09, "write": 0.01, "total": 0.83},
           "peak_bytes": 141557760, "plan_bytes": 130023424, "flops": 3.1e10}
    with open(os.path.join(folder, "events.jsonl"), "w", encoding="utf-8") as f:
        f.writelines(json.dumps(line) + "\n" for line in lines)
    with open(os.path.join(folder, "run.json"), "w", encoding="utf-8") as f:
        json.dump(run, f, indent=1)


if __name__ == "__main__":
    main()
