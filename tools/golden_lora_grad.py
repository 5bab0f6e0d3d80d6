"""Golden gradients of LoRA factors: networks of golden_cases.py with adapters of PEFT on several sets of layers, by PyTorch in float64.

    python tools/make_golden.py --out tests/golden --only lora_grad

Two files per case in tests/golden/lora_grad: NAME.lora.safetensors holds the factors (a LoRA file as diffusers writes it, float16), and
NAME.safetensors their gradients under the same keys (float32) with `grad.out.X`, the random gradient of output X that they come from. The
metadata say which layers and what rank and alpha. `reference_f32_error` is what PyTorch's own float32 run is off. Inputs and weights stand in
the network's own case.
"""
import json
import tempfile

import torch
from peft import LoraConfig
from safetensors.torch import save_file

import golden_cases
import golden_grad
import golden_lora
import make_golden

ATTENTION = golden_lora.ATTENTION
CASES = {
    "attention": ("unet/sd1", 2, 3.0, ATTENTION),
    "feed": ("unet/sd2", 3, 3.0, [*ATTENTION, "ff.net.0.proj", "ff.net.2"]),
    "convs": ("unet/sd1", 2, 1.0, ["conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "time_emb_proj"]),
    "projections": ("unet/sd1", 4, 2.0, ["proj_in", "proj_out", "attn2.to_k"]),
    "added": ("unet/sdxl", 2, 2.0, ["add_embedding.linear_1", "time_embedding.linear_2", "attn2.to_v", "conv_out"]),
}


def gradients(case, model, dtype):
    """Seeds of the outputs and gradients of all factors, computed in dtype."""
    store, golden_cases.FLOAT[0] = golden_grad.GradStore(), dtype
    try:
        case["run"](model.to(dtype), store)
    finally:
        golden_cases.FLOAT[0] = torch.float64
    factors = {name: p for name, p in model.named_parameters() if "lora_" in name}
    tensors, loss = {}, 0
    for i, (name, value) in enumerate(store.outputs.items()):
        seed = torch.randn(value.shape, generator=torch.Generator().manual_seed(170 + i))
        tensors["grad.out." + name] = seed
        loss = loss + (value * seed.to(dtype)).sum()
    for name, grad in zip(factors, torch.autograd.grad(loss, list(factors.values()))):
        tensors["unet." + name.replace(".default", "")] = grad.contiguous()
    return tensors


def run_case(name, case, rank, alpha, targets, out):
    with tempfile.TemporaryDirectory() as folder:
        make_golden.write_folder(case, folder)
        model = make_golden.load_double(case, folder)
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, init_lora_weights=False))
    golden_lora.randomize(model, 3)
    factors = {}
    for key, p in model.named_parameters():
        if "lora_" in key:
            p.requires_grad_(True)
            p.data = p.data.to(torch.float16).to(torch.float64)
            factors["unet." + key.replace(".default", "")] = p.data.to(torch.float16).contiguous()
    exact, rounded = gradients(case, model, torch.float64), gradients(case, model, torch.float32)
    keys = [k for k in exact if k.startswith("unet.")]
    worst = max(float((rounded[k].double() - exact[k]).norm() / exact[k].norm()) for k in keys)
    tensors = {k: v.to(torch.float32) for k, v in exact.items()}
    tensors["reference_f32_error"] = torch.tensor([worst], dtype=torch.float32)
    meta = {"network": case["name"], "rank": str(rank), "alpha": str(alpha), "targets": ",".join(targets)}
    adapter = {"unet.r": rank, "unet.lora_alpha": alpha, "unet.target_modules": targets}
    (out / "lora_grad").mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "lora_grad" / f"{name}.safetensors", meta)
    save_file(factors, out / "lora_grad" / f"{name}.lora.safetensors", {"lora_adapter_metadata": json.dumps(adapter)})
    print(f"lora_grad {name:12} {len(keys)} factors, float32 off by {worst:.1e}")


def grads(out, only):
    cases = {case["name"]: case for case in golden_cases.networks()}
    for name, (network, rank, alpha, targets) in CASES.items():
        if ("lora_grad/" + name).startswith(only):
            run_case(name, cases[network], rank, alpha, targets, out)
