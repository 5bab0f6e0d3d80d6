#!/usr/bin/env python3
"""kac against diffusers (PyTorch eager): the same weights, inputs, threads and dtype, alternating in one run.

    nice -n -5 python bench/compare_diffusers.py --kac build/kac               every row, about ten minutes
    python bench/compare_diffusers.py --kac build/kac --rows step,decode       rows whose name starts so

Prints a table of ratios (diffusers' time over kac's: above 1 kac is faster) of minima and medians, and writes it with
all times to bench/results/. How it is fair:
  * Rounds alternate: kac, then diffusers, again and again, so that a busy machine hurts both. The first pass of every
    round warms up and does not count.
  * kac times its own forward passes (`kac run … --repeat N --json`), as the Python side does; neither counts loading.
  * diffusers runs under inference_mode in its best eager setting: channels_last and contiguous are both tried first, the
    faster one is used and named.
  * Both results are compared: `difference` is the relative L2 distance of the outputs.
The `fk` rows are whole steered runs. The Python side is the same algorithm (DDIM eta 1, guidance, x0-hat decoded and judged by
CLIP at the same steps, systematic resampling below the same effective sample size), with prompt embeddings computed once.
"""
import argparse
import datetime
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")
ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPES = ROOT / "weights" / "shapes-64"
JUDGE = ROOT / "weights" / "shapes-clip"
PROMPT = "a red circle left of a blue square"
FK = {"particles": 8, "steps": 25, "cfg": 3.0, "lambda": 10.0, "every": 5, "ess": 0.5}
SD15_UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD15_VAE = {"block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4, "layers_per_block": 2, "sample_size": 512}


# ---- measuring ----

# A child's peak counts the memory of the process that forked it, so a small one in between starts and measures the command.
LAUNCHER = """
import json, os, subprocess, sys, time
before = time.perf_counter()
child = subprocess.Popen(sys.argv[2:], stdout=open(sys.argv[1] + ".out", "wb"), stderr=open(sys.argv[1] + ".err", "wb"))
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - before
print(json.dumps([seconds, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status)]))
"""


def process(command):
    """(seconds, peak bytes, stdout) of a child process."""
    command = [str(word) for word in command]
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder) / "child"
        measured = subprocess.run([sys.executable, "-I", "-S", "-c", LAUNCHER, at, *command], stdout=subprocess.PIPE,
                                  check=True).stdout
        out, err = at.with_suffix(".out").read_text(), at.with_suffix(".err").read_text()
    seconds, peak, code = json.loads(measured)
    if code != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {code}: {err.strip() or out.strip()}")
    return seconds, peak, out


def milliseconds(call, n):
    times = []
    for _ in range(n):
        before = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - before))
    return times


def summary(times):
    return {"min_ms": min(times), "median_ms": statistics.median(times), "ms": [round(t, 3) for t in times]}


class Bench:
    def __init__(self, options):
        import torch
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        self.torch, self.options = torch, options
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
        self.rows = []
        self.folder = tempfile.TemporaryDirectory(prefix="kac-compare-")
        self.path = pathlib.Path(self.folder.name)

    def kac(self, component, model, inputs, n):
        """n + 1 timed passes of one component, the first dropped, and the outputs."""
        from safetensors.torch import load_file, save_file
        save_file({k: v.contiguous() for k, v in inputs.items()}, self.path / "in.safetensors")
        command = [self.options.kac, "run", component, "--model", model, "--in", self.path / "in.safetensors", "--out",
                   self.path / "out.safetensors", "--threads", str(self.options.threads), "--dtype", self.options.dtype,
                   "--repeat", str(n + 1), "--json"]
        _, peak, out = process(command)
        return json.loads(out)["repeat_ms"][1:], peak, load_file(self.path / "out.safetensors")

    def best_setting(self, model, call):
        """Leaves the model in the faster memory format."""
        torch, times = self.torch, {}
        if self.options.repeats == 1:
            return "contiguous, not tuned"
        for name, layout in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
            model.to(memory_format=layout)
            call()
            times[name] = min(milliseconds(call, min(2, self.options.repeats)))
        best = min(times, key=times.get)
        model.to(memory_format=torch.channels_last if best == "channels_last" else torch.contiguous_format)
        return best

    def row(self, name, target, component, model_dir, model, inputs, call, output):
        """One component: rounds of (kac, diffusers), each with as many passes as fit into about half a second."""
        torch = self.torch
        with torch.inference_mode():
            model = model.to(self.dtype).eval()
            setting = self.best_setting(model, lambda: call(model))
            n = 1
            if self.options.repeats > 1:
                n = max(1, min(20, math.ceil(500 / milliseconds(lambda: call(model), 1)[0])))
            ours, theirs, peak = [], [], 0
            for _ in range(self.options.repeats):
                times, peak_now, outputs = self.kac(component, model_dir, inputs, n)
                ours += times
                peak = max(peak, peak_now)
                result = call(model)  # warms up
                theirs += milliseconds(lambda: call(model), n)
        result = result.float()
        difference = float((outputs[output] - result).norm() / result.norm())
        self.add(name, target, ours, theirs, setting=setting, difference=difference, kac_peak_bytes=peak)

    def add(self, name, target, ours, theirs, **more):
        row = {"row": name, "target": target, "kac": summary(ours), "diffusers": summary(theirs),
               "ratio_min": min(theirs) / min(ours), "ratio_median": statistics.median(theirs) / statistics.median(ours), **more}
        self.rows.append(row)
        print_row(row)


def print_row(row):
    if "kac" in row:
        notes = [row["setting"]] if "setting" in row else []
        if "difference" in row:
            notes.append(f"difference {row['difference']:.1e}")
        if "note" in row:
            notes.append(row["note"])
        target = f"{row['target']:.1f}" if row["target"] else "-"
        print(f"{row['row']:28} {row['kac']['min_ms']:10.1f} {row['kac']['median_ms']:10.1f} {row['diffusers']['min_ms']:10.1f} "
              f"{row['diffusers']['median_ms']:10.1f} {row['ratio_min']:7.2f} {row['ratio_median']:7.2f} {target:>7}  "
              f"{', '.join(notes)}", flush=True)
    else:
        print(f"{row['row']:28} {row['text']}", flush=True)


# ---- rows: components ----

def unet_row(bench, name, target, folder, model, n, size, tokens, width):
    torch = bench.torch
    inputs = {"sample": torch.randn(n, 4, size, size), "timestep": torch.tensor([501.0]),
              "encoder_hidden_states": torch.randn(n, tokens, width)}
    cast = {k: v.to(bench.dtype) for k, v in inputs.items()}

    def call(m):
        return m(cast["sample"], cast["timestep"][0].float(), cast["encoder_hidden_states"]).sample
    bench.row(name, target, "unet", folder, model, inputs, call, "sample")


def step_rows(bench):
    from diffusers import UNet2DConditionModel
    model = UNet2DConditionModel.from_pretrained(SHAPES / "unet", torch_dtype=bench.torch.float32)
    for n in (1, 8, 32):
        unet_row(bench, f"step shapes-64 batch {n}", 3.0, SHAPES / "unet", model, n, 16, 32, 128)


def sd15_unet_row(bench):
    """Random weights, stored once as float16 and removed at the end; both sides compute in the row's dtype."""
    from diffusers import UNet2DConditionModel
    folder = bench.path / "sd15-unet"
    UNet2DConditionModel(**SD15_UNET).half().save_pretrained(folder)
    model = UNet2DConditionModel.from_pretrained(folder, torch_dtype=bench.torch.float32)
    unet_row(bench, "sd15-size unet 256x256 cfg", 1.5, folder, model, 2, 32, 77, 768)
    remove(folder)


def decode_row(bench, name, target, folder, model, n, size):
    z = bench.torch.randn(n, 4, size, size)
    cast = z.to(bench.dtype)
    bench.row(name, target, "vae.decode", folder, model, {"z": z}, lambda m: m.decode(cast).sample, "sample")


def decode_rows(bench):
    from diffusers import AutoencoderKL
    model = AutoencoderKL.from_pretrained(SHAPES / "vae", torch_dtype=bench.torch.float32)
    decode_row(bench, "decode shapes-64 batch 8", 1.5, SHAPES / "vae", model, 8, 16)


def sd15_decode_row(bench):
    from diffusers import AutoencoderKL
    folder = bench.path / "sd15-vae"
    AutoencoderKL(**SD15_VAE).half().save_pretrained(folder)
    model = AutoencoderKL.from_pretrained(folder, torch_dtype=bench.torch.float32)
    decode_row(bench, "sd15-size decode 256x256", 1.5, folder, model, 1, 32)
    remove(folder)


def reward_row(bench):
    from transformers import CLIPModel
    torch = bench.torch
    model = CLIPModel.from_pretrained(JUDGE, dtype=torch.float32)
    inputs = {"pixel_values": torch.randn(8, 3, 64, 64), "input_ids": ids_of(PROMPT)}
    pixels = inputs["pixel_values"].to(bench.dtype)
    bench.row("reward shapes-clip batch 8", None, "clip", JUDGE, model, inputs,
              lambda m: m(input_ids=inputs["input_ids"], pixel_values=pixels).logits_per_image, "logits_per_image")


def ids_of(prompt):
    from transformers import CLIPTokenizer
    tokenizer = CLIPTokenizer.from_pretrained(SHAPES / "tokenizer")
    return tokenizer([prompt], padding="max_length", max_length=32, truncation=True, return_tensors="pt").input_ids


def remove(folder):
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


# ---- rows: whole runs ----

class PythonFk:
    """Feynman-Kac steering as one would write it on diffusers."""

    def __init__(self, threads, dtype):
        import diffusers
        import torch
        import transformers
        from diffusers import DDIMScheduler, StableDiffusionPipeline
        from transformers import CLIPModel
        torch.set_num_threads(threads)
        self.torch = torch
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        self.pipe = StableDiffusionPipeline.from_pretrained(SHAPES, torch_dtype=dtype, safety_checker=None)
        self.pipe.scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config)
        self.judge = CLIPModel.from_pretrained(JUDGE, dtype=dtype).eval()
        self.ids = ids_of(PROMPT)

    def embeds(self):
        both = self.torch.cat([ids_of(""), self.ids])
        return self.pipe.text_encoder(both).last_hidden_state

    def rewards(self, latents):
        images = self.pipe.vae.decode(latents / self.pipe.vae.config.scaling_factor).sample
        pixels = ((images / 2 + 0.5).clamp(0, 1) * 255).round() / 255 * 2 - 1
        out = self.judge(input_ids=self.ids, pixel_values=pixels)
        return (out.image_embeds @ out.text_embeds.T)[:, 0].double(), images

    def run(self, steps=None, n=FK["particles"], steer=True):
        torch, scheduler = self.torch, self.pipe.scheduler
        with torch.inference_mode():
            generator = torch.Generator().manual_seed(1)
            null, cond = self.embeds()
            text = torch.cat([null.expand(n, -1, -1), cond.expand(n, -1, -1)])
            scheduler.set_timesteps(steps or FK["steps"])
            x = torch.randn(n, 4, 16, 16, generator=generator).to(text.dtype)
            log_w, last = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
            for i, t in enumerate(scheduler.timesteps):
                free, guided = self.pipe.unet(torch.cat([x, x]), t, text).sample.chunk(2)
                prediction = free + FK["cfg"] * (guided - free)
                if steer and i > 0 and i % FK["every"] == 0:
                    x0 = scheduler.step(prediction, t, x, eta=0.0).pred_original_sample
                    r, _ = self.rewards(x0)
                    log_w, last = log_w + FK["lambda"] * (r - last), r
                    w = torch.softmax(log_w, 0)
                    if 1 / float((w * w).sum()) < FK["ess"] * n:
                        points = (torch.arange(n) + torch.rand(1, generator=generator)) / n
                        pick = torch.searchsorted(torch.cumsum(w, 0), points.double()).clamp(max=n - 1)
                        x, prediction, last, log_w = x[pick], prediction[pick], last[pick], torch.zeros_like(log_w)
                x = scheduler.step(prediction, t, x, eta=1.0, generator=generator).prev_sample
            return self.rewards(x)


def fk_command(bench, out, *more):
    o = bench.options
    return [o.kac, "generate", PROMPT, "--model", SHAPES, "--reward", f"clip={JUDGE}", "--steer", "fk", "--particles",
            str(FK["particles"]), "--steps", str(FK["steps"]), "--eta", "1", "--cfg-scale", str(FK["cfg"]), "--lambda",
            str(FK["lambda"]), "--score-every", str(FK["every"]), "--ess-threshold", str(FK["ess"]), "--seed", "1",
            "--threads", str(o.threads), "--dtype", o.dtype, "-o", out, *more]


def fk_rows(bench):
    """kac as a whole process against (a) the loop alone with everything loaded, (b) the whole Python process."""
    fk = PythonFk(bench.options.threads, bench.dtype)
    with bench.torch.inference_mode():
        text = fk.embeds().repeat_interleave(8, 0)
        x = bench.torch.randn(16, 4, 16, 16).to(bench.dtype)
        setting = bench.best_setting(fk.pipe.unet, lambda: fk.pipe.unet(x, 501, text))
        fk.pipe.vae.to(memory_format=bench.torch.channels_last if setting == "channels_last" else bench.torch.contiguous_format)
    fk.run(steps=2)
    ours, loop, whole, our_peaks, their_peaks, run = [], [], [], [], [], {}
    child = [sys.executable, __file__, "--child", "fk", "--threads", str(bench.options.threads), "--dtype",
             bench.options.dtype, "--setting", setting, "--fk-steps", str(FK["steps"])]
    for i in range(bench.options.repeats):
        out = bench.path / f"run-{i}"
        seconds, peak, _ = process(fk_command(bench, out))
        ours.append(1000 * seconds)
        our_peaks.append(peak)
        run = json.loads((out / "run.json").read_text())
        loop += milliseconds(fk.run, 1)
        seconds, peak, _ = process(child)
        whole.append(1000 * seconds)
        their_peaks.append(peak)
    bench.add("fk: process vs loop alone", 4.0, ours, loop, setting=setting, note="kac with start and files",
              counts=run.get("counts"), kac_seconds=run.get("seconds"))
    bench.add("fk: process vs process", None, ours, whole, setting=setting)
    memory_row(bench, "fk: peak memory", min(our_peaks), min(their_peaks), run.get("plan_bytes"))


def memory_row(bench, name, ours, theirs, planned):
    row = {"row": name, "kac_peak_bytes": ours, "diffusers_peak_bytes": theirs, "ratio": theirs / ours,
           "kac_plan_bytes": planned,
           "text": f"kac {ours / 1e6:.0f} MB, diffusers {theirs / 1e6:.0f} MB, ratio {theirs / ours:.1f}"}
    if planned:
        row["text"] += f"; kac is {100 * (ours / planned - 1):+.0f} % from weights and plan (target at most +10 %)"
    bench.rows.append(row)
    print_row(row)


def cold_row(bench):
    """Process start to the end of a run of one step, one picture: kac's figure holds decode and files as well."""
    ours, theirs = [], []
    for i in range(bench.options.repeats):
        out = bench.path / f"cold-{i}"
        command = [bench.options.kac, "generate", PROMPT, "--model", SHAPES, "--steer", "none", "--particles", "1", "--steps", "1",
                   "--seed", "1", "--threads", str(bench.options.threads), "-o", out]
        ours.append(1000 * process(command)[0])
        theirs.append(1000 * process([sys.executable, __file__, "--child", "cold", "--threads",
                                      str(bench.options.threads)])[0])
    bench.add("cold start to one step", None, ours, theirs, note="target: kac at most 1000 ms")


def child(options):
    import torch
    fk = PythonFk(options.threads, {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype])
    if options.setting == "channels_last":
        fk.pipe.unet.to(memory_format=torch.channels_last)
        fk.pipe.vae.to(memory_format=torch.channels_last)
    if options.child == "cold":
        fk.run(steps=1, n=1, steer=False)
    else:
        fk.run()


ROWS = {"step": step_rows, "decode": decode_rows, "reward": reward_row, "fk": fk_rows, "cold": cold_row,
        "sd15-unet": sd15_unet_row, "sd15-decode": sd15_decode_row}


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
               platform.machine())
    flags = next((line for line in open("/proc/cpuinfo") if line.startswith("flags")), "").split()
    wanted = [f for f in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
    return {"cpu": cpu, "cores": os.cpu_count(), "isa": wanted, "load_at_start": os.getloadavg()[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kac", default="build/kac", help="the program")
    parser.add_argument("--rows", default="", help="comma-separated: " + ", ".join(ROWS))
    parser.add_argument("--repeats", type=int, default=5, help="rounds of every row (1: only to see that all works)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file; bench/results/DATE.json without it")
    parser.add_argument("--fk-steps", type=int, default=FK["steps"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--setting", default="contiguous", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    FK["steps"] = options.fk_steps
    if options.child:
        return child(options)
    if not os.access(options.kac, os.X_OK):
        parser.error(f"{options.kac} is no program; build it, or say where with --kac")
    import diffusers
    import torch
    import transformers
    bench = Bench(options)
    about = {"date": datetime.datetime.now().isoformat(timespec="seconds"), **machine(), "threads": options.threads,
             "dtype": options.dtype, "repeats": options.repeats, "fk": FK, "torch": torch.__version__,
             "diffusers": diffusers.__version__, "transformers": transformers.__version__}
    print(", ".join(f"{k} {v}" for k, v in about.items() if k != "fk"))
    print(f"{'':28} {'kac min':>10} {'median':>10} {'theirs min':>10} {'median':>10} {'ratio':>7} {'median':>7} {'target':>7}"
          f"  (milliseconds)")
    failed = []
    out = options.out or ROOT / "bench" / "results" / f"compare-{about['date'][:16].replace(':', '')}-{options.dtype}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    for name, rows in ROWS.items():
        bench.torch.manual_seed(0)
        if options.rows and not any(name.startswith(r) for r in options.rows.split(",")):
            continue
        try:
            rows(bench)
        except Exception as error:  # a row that cannot run must not take the others with it, but it is said
            failed.append({"row": name, "error": str(error)})
            print(f"{name:28} FAILED: {error}", flush=True)
        out.write_text(json.dumps({**about, "rows": bench.rows, "failed": failed}, indent=1) + "\n")
    print(f"written: {out}")
    bench.folder.cleanup()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
