#!/usr/bin/env python3
"""Golden files: what diffusers and transformers compute for small random networks, for the parity tests.

    python tools/make_golden.py --out tests/golden              all of them, about two minutes
    python tools/make_golden.py --out DIR --only unet/sd1       those whose name starts so

A case is NAME.json (configuration as in the checkpoint's config.json, the state dict's names and shapes, what is stored
how) and NAME.safetensors (`in.*`, `out.*`, `tap.*`). Weights are not stored: they are a formula of tensor name and
element index (`formula` below, tests/util/golden_weights.c), so a test writes the checkpoint itself. The reference runs
in float64 on the float32 weights, so that a test measures its distance from the truth, not from another float32 run.
Long tensors are stored as every s-th element of the flattened tensor (NCHW), s coprime to all its sizes.
tests/golden/README.md says more. Needs torch, diffusers, transformers, safetensors, pillow.
"""
import argparse
import json
import math
import os
import pathlib
import sys
import tempfile
import zlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import golden_cases

OUTPUT_MAX, BLOCK_MAX, DETAIL_MAX = 4096, 1024, 192  # elements kept of an output, of a block's tap, of a finer tap
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


# ---- the formula; tests/util/golden_weights.c computes the same bits ----

def mix(x):
    """lowbias32, a 32-bit integer hash (C. Wellons, hash-prospector), on a uint32 array."""
    x = x.astype(np.uint32)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def bits(name, n):
    """Elements 0 ... n-1 of the stream `name`, 32 bits each."""
    return mix(mix(np.arange(n, dtype=np.uint32)) ^ np.uint32(zlib.crc32(name.encode())))


def uniform(name, n):
    """The upper 24 bits as float64 in [-1, 1)."""
    return (bits(name, n) >> np.uint32(8)).astype(np.float64) / 2**23 - 1


def rule(name, shape):
    """(offset, scale) of a state-dict entry, both exact in float32."""
    fan_in = math.prod(shape[1:])
    if name.endswith("logit_scale"):
        offset, scale = 2.6592, 0.0
    elif name.endswith(("token_embedding.weight", "position_embedding.weight", "class_embedding")):
        offset, scale = 0.0, 0.5
    elif len(shape) >= 2:  # keeps the variance; queries and keys a little sharper, so that attention is far from a mean
        sharp = any(part in ("to_q", "to_k", "q_proj", "k_proj", "query", "key") for part in name.split("."))
        offset, scale = 0.0, math.sqrt(3.0 / fan_in) * (1.5 if sharp else 1.0)
    elif name.endswith(".weight"):  # norms
        offset, scale = 1.0, 0.25
    else:
        offset, scale = 0.0, 0.25
    return float(np.float32(offset)), float(np.float32(scale))


def formula(name, shape, offset, scale):
    """offset + scale * u in float64, rounded once to float32."""
    u = uniform(name, math.prod(shape))
    return torch.from_numpy((offset + scale * u).astype(np.float32).reshape(shape))


# ---- what is kept of a tensor ----

def stride_for(shape, n_max):
    n = math.prod(shape)
    s = -(-n // n_max)
    while s > 1 and any(math.gcd(s, d) != 1 for d in shape if d > 1):
        s += 1
    return s


class Store:
    """Collects one case's tensors and the description of what is stored."""

    def __init__(self):
        self.tensors, self.outputs, self.taps = {}, {}, {}

    def put(self, table, prefix, name, value, n_max):
        value = value.detach().to(torch.float32) if value.is_floating_point() else value.detach()
        s = stride_for(value.shape, n_max)
        table[name] = {"shape": list(value.shape), "stride": s}
        self.tensors[prefix + name] = value.contiguous().flatten()[::s].clone()

    def input(self, name, value):
        self.tensors["in." + name] = value.contiguous().clone()

    def output(self, name, value):
        self.put(self.outputs, "out.", name, value, OUTPUT_MAX)

    def tap(self, name, value, n_max):
        if name not in self.taps:
            self.put(self.taps, "tap.", name, value, n_max)


def watch(model, store, prefix, wanted):
    """Forward hooks on the modules that wanted(path) gives a size for; the first tensor of a tuple or output is kept."""
    hooks = []
    for path, module in model.named_modules():
        n_max = wanted(path)
        if not n_max:
            continue

        def hook(_module, _args, out, name=prefix + path, n_max=n_max):
            while not torch.is_tensor(out):
                out = out[0]
            store.tap(name, out, n_max)
        hooks.append(module.register_forward_hook(hook))
    return hooks


def wanted_path(path):
    """How many elements to keep of the output of module `path`; 0: not a tap."""
    parts = path.split(".")
    last = parts[-1]
    if last in ("conv_in", "conv_out", "time_proj", "time_embedding", "class_embedding", "add_embedding",
                "encoder_hid_proj", "mid_block", "quant_conv", "post_quant_conv",
                "embeddings", "final_layer_norm", "pre_layrnorm", "text_projection", "visual_projection"):
        return BLOCK_MAX
    if last.isdigit() and len(parts) >= 2:
        kind = parts[-2]
        if kind in ("down_blocks", "up_blocks"):
            return BLOCK_MAX
        if kind in ("resnets", "attentions", "downsamplers", "upsamplers"):
            return DETAIL_MAX
        if kind == "layers":  # CLIP's layers; AutoencoderTiny's flat list
            return DETAIL_MAX
    if last in ("attn1", "attn2", "ff") and "attentions.0." in path and "transformer_blocks.0" in path:
        return DETAIL_MAX
    if last in ("self_attn", "mlp") and "layers.0." in path:
        return DETAIL_MAX
    return 0


# ---- a checkpoint folder made by the formula ----

def strip_config(config, case):
    config = {k: v for k, v in config.items() if k not in ("_diffusers_version", "_name_or_path", "transformers_version")}
    if case.get("keep"):
        config = {k: v for k, v in config.items() if k in case["keep"] or k == "_class_name"}
    for key in case.get("drop", ()):
        config.pop(key, None)
    return config


def write_folder(case, folder):
    """A checkpoint as the library itself would save it, with the formula's weights. Returns (config, weights, crc, file)."""
    torch.manual_seed(0)
    case["make"]().save_pretrained(folder)
    (file,) = pathlib.Path(folder).glob("*.safetensors")
    names = {case.get("rename", lambda n: n)(n): list(t.shape) for n, t in load_file(file).items()}
    weights, tensors, crc = {}, {}, 0
    for name in sorted(names):
        offset, scale = rule(name, names[name])
        weights[name] = [offset, scale, names[name]]
        values = formula(name, names[name], offset, scale)
        crc = zlib.crc32(values.numpy().tobytes(), crc)
        tensors[name] = values.to(DTYPES[case.get("dtype", "F32")]).contiguous()
    extra = {name: list(t.shape) for name, t in case.get("extra", {}).items()}
    tensors.update(case.get("extra", {}))
    save_file(tensors, file, {"format": "pt"})
    config_file = pathlib.Path(folder) / "config.json"
    config = strip_config(json.loads(config_file.read_text()), case)
    config_file.write_text(json.dumps(config))
    return {"config": config, "weights": weights, "extra": extra, "weights_crc32": crc, "file": file.name,
            "dtype": case.get("dtype", "F32")}


def load_double(case, folder):
    """The model as the library loads it from the folder, in float64; every weight must have come from the file."""
    key = "torch_dtype" if "diffusers" in case["class"].__module__ else "dtype"
    model, info = case["class"].from_pretrained(folder, output_loading_info=True, **{key: torch.float32})
    bad = {k: v for k, v in info.items() if v and k in ("missing_keys", "mismatched_keys", "error_msgs")}
    if bad:
        raise SystemExit(f"{case['name']}: the reference did not load its own file: {bad}")
    return model.double().eval()


def dump(case_name, head, store, out):
    """NAME.json, one line per weight and tap, and NAME.safetensors."""
    path = out / case_name
    path.parent.mkdir(parents=True, exist_ok=True)

    def table(entries):
        return "{\n" + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in entries.items()) + "\n  }"
    lines = []
    for key, value in head.items():
        nested = key in ("weights", "config", "parts") and isinstance(value, dict) and value
        lines.append(f"  {json.dumps(key)}: {table(value) if nested else json.dumps(value)}")
    lines.append(f'  "inputs": {json.dumps(sorted(n[3:] for n in store.tensors if n.startswith("in.")))}')
    lines.append(f'  "outputs": {table(store.outputs) if store.outputs else "{}"}')
    lines.append(f'  "taps": {table(store.taps) if store.taps else "{}"}')
    pathlib.Path(f"{path}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    save_file(store.tensors, f"{path}.safetensors")
    n_bytes = sum(os.path.getsize(f"{path}.{e}") for e in ("json", "safetensors"))
    worst = max([float(t.abs().max()) for t in store.tensors.values() if t.is_floating_point()] or [0])
    print(f"{case_name:32} {n_bytes / 1000:7.1f} kB  {len(store.taps):3} taps  largest |value| {worst:6.1f}"
          f"  bf16 {head.get('reference_bf16_error', 0):.1e}")


class Distance:
    """In place of a Store: how far each tensor of a second run is from the stored one."""

    def __init__(self, store):
        self.store, self.worst = store, 0.0

    def input(self, name, value):
        pass

    def output(self, name, value):
        self._compare(self.store.outputs[name], self.store.tensors["out." + name], value)

    def tap(self, name, value, _n_max):
        self._compare(self.store.taps[name], self.store.tensors["tap." + name], value)

    def _compare(self, entry, want, value):
        got = value.detach().double().contiguous().flatten()[::entry["stride"]]
        self.worst = max(self.worst, float((got - want.double()).norm() / want.double().norm()))


def bfloat16_error(case, model, store):
    """The largest error of the reference's own bfloat16 run over taps and outputs: what ours is judged by where it is large."""
    distance = Distance(store)
    model = model.to(torch.bfloat16)
    hooks = watch(model, distance, case.get("tap_prefix", ""), wanted_path)
    golden_cases.FLOAT[0] = torch.bfloat16
    with torch.no_grad():
        case["run"](model, distance)
    golden_cases.FLOAT[0] = torch.float64
    for h in hooks:
        h.remove()
    return float(f"{distance.worst:.3g}")


def run_case(case, out):
    store = Store()
    with tempfile.TemporaryDirectory() as folder:
        head = write_folder(case, folder)
        model = load_double(case, folder)
    hooks = watch(model, store, case.get("tap_prefix", ""), wanted_path)
    with torch.no_grad():
        case["run"](model, store)
    for h in hooks:
        h.remove()
    head = {"about": case["about"], "component": case["component"], "class": case["class"].__name__, **head,
            "reference_bf16_error": bfloat16_error(case, model, store)}
    dump(case["name"], head, store, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--only", default="", help="cases whose name starts with this")
    options = parser.parse_args()
    torch.set_num_threads(2)
    import golden_pipeline  # they use this module
    import golden_pipeline_xl
    import golden_task
    import golden_schedulers
    import golden_grad
    for case in golden_cases.networks():
        if case["name"].startswith(options.only):
            run_case(case, options.out)
    if "pipeline/tiny".startswith(options.only):
        golden_pipeline.pipeline(options.out)
    if "pipeline/schedulers".startswith(options.only):
        golden_schedulers.schedulers(options.out)
    golden_pipeline_xl.pipelines(options.out, options.only)
    golden_pipeline.image_processors(options.out, options.only)
    golden_task.tasks(options.out, options.only)
    import golden_lora
    golden_lora.run(options.out, options.only)
    golden_grad.grads(options.out, options.only)
    import golden_lora_grad
    golden_lora_grad.grads(options.out, options.only)


if __name__ == "__main__":
    main()
