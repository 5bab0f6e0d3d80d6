"""Checkpoint files for the tests of the readers: what torch.save writes.

    python tools/golden_checkpoint.py --torch tests/io/data/torch      the files of tests/io/pickle_test.c

Needs torch, numpy, safetensors.
"""
import argparse
import pathlib
from collections import OrderedDict

import numpy as np
import torch
from safetensors.torch import save_file


def tensors():
    """Every dtype, and the layouts that PyTorch keeps: transposed, stepped, expanded, shared, empty, a single number."""
    torch.manual_seed(0)
    w = torch.randn(6, 4)
    small = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64", torch.int64: "i64", torch.int32: "i32",
             torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "bool", torch.uint16: "u16", torch.uint32: "u32"}
    out = OrderedDict((name, (torch.arange(6) - (0 if name[0] == "u" else 3)).to(dtype)) for dtype, name in small.items())
    out.update(w=w, transposed=w.t(), stepped=w[1:5:2, 1:], shared=w, expanded=torch.ones(1, 3).expand(4, 3), empty=torch.zeros(0, 4),
               number=torch.tensor(2.5), parameter=torch.nn.Parameter(w), deep=torch.randn(2, 3, 4, 2).permute(3, 1, 0, 2))
    return out


def torch_files(out):
    out.mkdir(parents=True, exist_ok=True)
    flat = tensors()
    save_file({k: v.detach().contiguous().clone() for k, v in flat.items()}, out / "twin.safetensors")
    torch.save(flat, out / "plain.pt")
    torch.save(dict(flat), out / "protocol5.pt", pickle_protocol=5)
    old = OrderedDict((k, v) for k, v in flat.items() if v.dtype not in (torch.uint16, torch.uint32))  # younger than the format
    torch.save(old, out / "old.pt", _use_new_zipfile_serialization=False)
    training = {"state_dict": flat, "global_step": 875000, "lr": 0.5, "name": "h\u00e9", "epoch": None, "flag": True,
                "callbacks": {"checkpoint": {"best": [1, (2, 3)], "path": None}}, "optimizer": {0: {"m": flat["w"]}}, 7: "seven",
                "score": np.float64(3), "array": np.arange(3), "device": torch.device("cpu"), "dtype": torch.float16,
                "size": torch.Size([1, 2]), "kinds": {1, 2}, "frozen": frozenset([1]), "bytes": b"abc", "large": 1 << 70}
    torch.save(training, out / "training.ckpt")
    w = flat["w"]
    torch.save({"string_to_token": {"*": 265}, "string_to_param": torch.nn.ParameterDict({"*": w}), "nested": {"a": {"b": [w, w]}}},
               out / "nested.pt")
    torch.save({"layer": torch.nn.Linear(2, 2)}, out / "module.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(out / "script.pt"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch", type=pathlib.Path, help="folder for files of torch.save")
    options = parser.parse_args()
    if options.torch:
        torch_files(options.torch)


if __name__ == "__main__":
    main()
