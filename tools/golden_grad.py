"""Golden gradients: vector-Jacobian products of the networks of golden_cases.py, by PyTorch in float64.

    python tools/make_golden.py --out tests/golden --only grad

One file per case, tests/golden/grad/FAMILY.NAME.safetensors: `grad.out.X` is a random gradient of output X (float32), `grad.in.Y` the
gradient that it gives input Y. Weights, inputs and outputs stand in the case's own files. The gradients of several outputs add up, as
they do in `kac run COMPONENT --grad`. `reference_f32_error` is what PyTorch's own float32 run is off at its worst gradient: random weights
amplify rounding, and a gradient is judged by that where it is large.
"""
import tempfile

import torch
from safetensors.torch import save_file

import golden_cases
import make_golden

CASES = ["unet/sd1", "unet/sd2", "unet/scale_shift", "unet/sdxl", "unet/lcm", "unet/resnet_blocks", "unet/text_pool", "unet/mish_odd",
         "unet/class_projection", "unet_plain/heads", "unet_plain/scale_shift", "unet_plain/classes", "vae/sd1", "vae/no_quant",
         "tiny/three", "tiny/silu", "clip/patch_14"]


class GradStore:
    """In place of a Store: keeps inputs by identity and outputs with their graph."""

    def __init__(self):
        self.inputs, self.outputs = {}, {}

    def input(self, name, value):
        self.inputs[id(value)] = (name, value)

    def output(self, name, value):
        self.outputs[name] = value

    def tap(self, name, value, n_max):
        pass


def gradients(case, model, dtype):
    """Seeds of the outputs and gradients of the inputs, computed in dtype."""
    store, leaves = GradStore(), {}
    plain = golden_cases.cast
    golden_cases.FLOAT[0] = dtype

    def cast(x):  # what goes into the network in float64 becomes a leaf
        if id(x) not in store.inputs or not x.is_floating_point():
            return plain(x)
        name = store.inputs[id(x)][0]
        leaves.setdefault(name, plain(x).clone().requires_grad_())
        return leaves[name]
    golden_cases.cast = cast
    try:
        case["run"](model.to(dtype), store)
    finally:
        golden_cases.cast, golden_cases.FLOAT[0] = plain, torch.float64
    tensors, loss = {}, 0
    for i, (name, value) in enumerate(store.outputs.items()):
        if not value.requires_grad:
            continue
        seed = torch.randn(value.shape, generator=torch.Generator().manual_seed(70 + i))
        tensors["grad.out." + name] = seed
        loss = loss + (value * seed.to(dtype)).sum()
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    for name, grad in zip(leaves, grads):
        if grad is not None:
            tensors["grad.in." + name] = grad.contiguous()
    return tensors


def run_case(case, out):
    with tempfile.TemporaryDirectory() as folder:
        make_golden.write_folder(case, folder)
        model = make_golden.load_double(case, folder)
    exact, rounded = gradients(case, model, torch.float64), gradients(case, model, torch.float32)
    worst = max(float((rounded[k].double() - exact[k]).norm() / exact[k].norm()) for k in exact if k.startswith("grad.in."))
    tensors = {name: value.to(torch.float32) for name, value in exact.items()}
    tensors["reference_f32_error"] = torch.tensor([worst], dtype=torch.float32)
    (out / "grad").mkdir(parents=True, exist_ok=True)
    path = out / "grad" / (case["name"].replace("/", ".") + ".safetensors")
    save_file(tensors, path)
    print(f"grad {case['name']:24} {path.stat().st_size / 1000:7.1f} kB", *sorted(tensors))


def grads(out, only):
    cases = {case["name"]: case for case in golden_cases.networks()}
    for name in CASES:
        if ("grad/" + name).startswith(only):
            run_case(cases[name], out)
