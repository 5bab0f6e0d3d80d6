"""MNIST's IDX files as pictures of 16x16: what the trainer and the measurement share."""
import gzip
import os

import numpy as np
import torch
import torch.nn.functional as F

SIZE = 16


def read_idx(path):
    with gzip.open(path, "rb") as f:
        raw = f.read()
    n_dims = raw[3]
    shape = np.frombuffer(raw, ">i4", n_dims, 4)
    return np.frombuffer(raw, np.uint8, -1, 4 + 4 * n_dims).reshape(shape)


def load(folder, part, size=SIZE):
    """Pictures [n, 1, size, size] in 0..1 and labels [n] of "train" or "t10k"; made smaller with antialiasing."""
    x = read_idx(os.path.join(folder, f"{part}-images-idx3-ubyte.gz"))
    y = read_idx(os.path.join(folder, f"{part}-labels-idx1-ubyte.gz"))
    x = torch.from_numpy(x.copy()).float().div(255).unsqueeze(1)
    small = [F.interpolate(b, (size, size), mode="bilinear", antialias=True, align_corners=False) for b in x.split(5000)]
    return torch.cat(small).clamp(0, 1), torch.from_numpy(y.astype(np.int64))
