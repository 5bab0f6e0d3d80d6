"""Golden files of whole tasks: image to image, inpainting (both ways), prompts with weights and in chunks, tiny autoencoders as their
author publishes them. The reference draws the noise that kac draws: Philox4x32-10 of (seed, purpose, step, particle)."""
import contextlib
import pathlib
import tempfile
import unittest.mock
import zlib

import numpy as np
import torch
from diffusers import (AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler,
                       HeunDiscreteScheduler, PNDMScheduler, StableDiffusionImg2ImgPipeline,
                       StableDiffusionInpaintPipeline, StableDiffusionPipeline, UNet2DConditionModel,
                       UNet2DModel, UniPCMultistepScheduler)
from PIL import Image
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import make_golden as golden
from golden_cases import noise
import golden_pipeline
from golden_pipeline import ROOT, TOKENIZER, picture

SEED, WIDTH, HEIGHT, CONTEXT = 11, 40, 24, 16
PROMPTS = ["a red circle above a blue square", "two green stars"]
NEGATIVE = "a blurry picture"
PURPOSE_INIT, PURPOSE_ENCODE = 1, 7
SCHEDULER = {**golden_pipeline.SCHEDULER, "skip_prk_steps": True}
SCHEDULERS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "dpm++2m": DPMSolverMultistepScheduler,
              "pndm": PNDMScheduler, "heun": HeunDiscreteScheduler, "unipc": UniPCMultistepScheduler}


# ---- kac's noise ----

def philox(seed, purpose, step, slot, n):
    """n standard normals, as src/base/philox.h defines them; here with the library's log, sine and cosine."""
    blocks = -(-n // 4)
    c = [np.arange(blocks, dtype=np.uint64), np.full(blocks, slot, np.uint64), np.full(blocks, step, np.uint64),
         np.full(blocks, purpose, np.uint64)]
    k0, k1, low = seed & 0xFFFFFFFF, seed >> 32, np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(q >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), q & low, (p >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    out = np.empty((blocks, 4))
    for i in (0, 2):
        radius = np.sqrt(-2 * np.log((c[i].astype(np.float64) + 0.5) / 2**32))
        angle = 2 * np.pi * c[i + 1].astype(np.float64) / 2**32
        out[:, i], out[:, i + 1] = radius * np.cos(angle), radius * np.sin(angle)
    return out.reshape(-1)[:n]


def states(purpose, step, slots, channels):
    """[slots, channels, h, w]; kac's elements run over [h, w, channels]."""
    h, w = HEIGHT // 4, WIDTH // 4
    rows = [philox(SEED, purpose, step, slot, h * w * channels).reshape(h, w, channels) for slot in slots]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()


@contextlib.contextmanager
def draws(*tensors):
    """Whatever the pipelines and autoencoders draw next, in this order."""
    rest = list(tensors)

    def take(shape, *_args, **_options):
        value = rest.pop(0)
        assert tuple(shape) == tuple(value.shape), (shape, value.shape)
        return value
    places = ["diffusers.models.autoencoders.vae.randn_tensor"] + [
        f"diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_{name}.randn_tensor"
        for name in ("img2img", "inpaint")]
    with contextlib.ExitStack() as stack:
        for place in places:
            stack.enter_context(unittest.mock.patch(place, take))
        yield
    assert not rest, "the reference drew less than expected"


# ---- the small networks ----

def parts(in_channels):
    text = CLIPTextConfig(vocab_size=918, bos_token_id=916, eos_token_id=917, pad_token_id=917, hidden_size=32,
                          intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
                          max_position_embeddings=CONTEXT, projection_dim=32)
    unet = {"sample_size": 8, "in_channels": in_channels, "cross_attention_dim": 32,
            "block_out_channels": [16, 32], "norm_num_groups": 4, "attention_head_dim": 4, "layers_per_block": 1,
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}
    vae = {"block_out_channels": [8, 8, 16], "down_block_types": ["DownEncoderBlock2D"] * 3, "norm_num_groups": 4,
           "up_block_types": ["UpDecoderBlock2D"] * 3, "layers_per_block": 1, "sample_size": 40, "scaling_factor": 0.7}
    name = f"task{in_channels}"
    return {"text_encoder": {"name": name, "class": CLIPTextModel, "make": lambda: CLIPTextModel(text),
                             "rename": lambda n: "text_model." + n},
            "unet": {"name": name, "class": UNet2DConditionModel, "make": lambda: UNet2DConditionModel(**unet)},
            "vae": {"name": name, "class": AutoencoderKL, "make": lambda: AutoencoderKL(**vae)}}


def build(in_channels):
    heads, models = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, case in parts(in_channels).items():
            heads[name] = golden.write_folder(case, pathlib.Path(folder) / name)
            models[name] = golden.load_double(case, pathlib.Path(folder) / name)
    models["tokenizer"] = CLIPTokenizer.from_pretrained(ROOT / TOKENIZER, model_max_length=CONTEXT)
    return heads, models


def make(kind, models, scheduler="ddim"):
    pipe = kind(**models, scheduler=SCHEDULERS[scheduler].from_config(SCHEDULER), safety_checker=None,
                feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def index(class_name):
    return {"_class_name": class_name, "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
            "safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}


def mask_pixels():
    """An oval, some of whose edge lies inside of latents' squares."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return (((x - 17) ** 2 + 2 * (y - 11) ** 2 < 170) * 255).astype(np.uint8)


def finish(pipe, store, name, final):
    store.output(f"{name}.latents", final)
    store.output(f"{name}.image", pipe.vae.decode(final / pipe.vae.config.scaling_factor).sample)


# ---- image to image ----

IMG2IMG = [
    {"name": "ddim", "sampling_method": "ddim", "steps": 20, "strength": 0.6, "guidance_scale": 3.0, "mean": False},
    {"name": "euler", "sampling_method": "euler", "steps": 20, "strength": 0.35, "guidance_scale": 2.0, "mean": False},
    {"name": "dpmpp_2m", "sampling_method": "dpm++2m", "steps": 20, "strength": 0.8, "guidance_scale": 3.0, "mean": False},
    {"name": "pndm", "sampling_method": "pndm", "steps": 20, "strength": 0.5, "guidance_scale": 2.0, "mean": False},
    {"name": "heun", "sampling_method": "heun", "steps": 20, "strength": 0.4, "guidance_scale": 2.0, "mean": False},
    {"name": "unipc", "sampling_method": "unipc", "steps": 20, "strength": 0.6, "guidance_scale": 2.0, "mean": False},
    {"name": "full", "sampling_method": "ddim", "steps": 5, "strength": 1.0, "guidance_scale": 1.0, "mean": False},
    {"name": "mean", "sampling_method": "ddim", "steps": 7, "strength": 0.29, "guidance_scale": 3.0, "mean": True},
]


def run_img2img(models, run, store, pixels):
    pipe = make(StableDiffusionImg2ImgPipeline, models, run["sampling_method"])
    slots, wanted = [0, 0], [states(PURPOSE_INIT, 0, [0, 0], 4)]
    if not run["mean"]:
        wanted.insert(0, states(PURPOSE_ENCODE, 0, slots, 4))
    mode = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img.retrieve_latents"
    mean = unittest.mock.patch(mode, lambda out, **_options: out.latent_dist.mode())
    with draws(*wanted), mean if run["mean"] else contextlib.nullcontext():
        final = pipe(PROMPTS, image=[Image.fromarray(pixels)] * 2, negative_prompt=[NEGATIVE] * 2, eta=0.0,
                     strength=run["strength"], num_inference_steps=run["steps"],
                     guidance_scale=run["guidance_scale"], output_type="latent").images
    finish(pipe, store, run["name"], final)


# ---- inpainting ----

INPAINT = [
    {"name": "ddim", "sampling_method": "ddim", "steps": 20, "strength": 1.0, "guidance_scale": 3.0},
    {"name": "part", "sampling_method": "ddim", "steps": 20, "strength": 0.7, "guidance_scale": 3.0},
    {"name": "euler", "sampling_method": "euler", "steps": 20, "strength": 0.7, "guidance_scale": 1.0},
    {"name": "dpmpp_2m", "sampling_method": "dpm++2m", "steps": 20, "strength": 1.0, "guidance_scale": 2.0},
    {"name": "pndm", "sampling_method": "pndm", "steps": 10, "strength": 1.0, "guidance_scale": 2.0},
]


def run_inpaint(models, run, store, pixels, mask):
    """One prompt after the other: the masked picture is drawn once, as particle 0's of each."""
    pipe = make(StableDiffusionInpaintPipeline, models, run["sampling_method"])
    nine = models["unet"].config.in_channels == 9
    first, encoded, masked = (states(PURPOSE_INIT, 0, [0], 4), states(PURPOSE_ENCODE, 0, [0], 4),
                              states(PURPOSE_ENCODE, 1, [0], 4))
    wanted = [first, masked]
    if not nine or run["strength"] < 1:
        wanted.insert(0, encoded)
    finals = []
    for prompt in PROMPTS:
        with draws(*wanted):
            finals.append(pipe(prompt, image=Image.fromarray(pixels), mask_image=Image.fromarray(mask), width=WIDTH,
                               height=HEIGHT, negative_prompt=NEGATIVE, eta=0.0, strength=run["strength"],
                               num_inference_steps=run["steps"], guidance_scale=run["guidance_scale"],
                               output_type="latent").images)
    finish(pipe, store, run["name"], torch.cat(finals))


# ---- prompts with weights and in chunks ----

# (prompt as kac reads it, the pieces that it means)
TEXTS = [
    ("a (red:1.3) circle above a [blue] ((square))",
     [("a ", 1.0), ("red", 1.3), (" circle above a ", 1.0), ("blue", 1 / 1.1), (" ", 1.0), ("square", 1.1 * 1.1)]),
    ("two green stars left of a yellow triangle below a red circle above a blue square, a (white:0.6) ring and a purple star",
     [("two green stars left of a yellow triangle below a red circle above a blue square, a ", 1.0), ("white", 0.6),
      (" ring and a purple star", 1.0)]),
]
TEXT_RUNS = [
    {"name": "weights", "weighting": True, "chunks": False, "clip_skip": 0, "steps": 4, "guidance_scale": 3.0},
    {"name": "chunks", "weighting": False, "chunks": True, "clip_skip": 0, "steps": 4, "guidance_scale": 3.0},
    {"name": "both", "weighting": True, "chunks": True, "clip_skip": 1, "steps": 4, "guidance_scale": 2.0},
]


def token_chunks(tokenizer, pieces, chunks):
    """[(ids, weights)] of CONTEXT entries each."""
    ids, weights = [], []
    for text, weight in pieces:
        own = tokenizer(text, add_special_tokens=False).input_ids
        ids += own
        weights += [weight] * len(own)
    room = CONTEXT - 2
    rows = []
    for at in range(0, max(len(ids), 1), room):
        part, part_weights = ids[at:at + room], weights[at:at + room]
        fill = room - len(part)
        rows.append(([tokenizer.bos_token_id] + part + [tokenizer.eos_token_id] + [tokenizer.pad_token_id] * fill,
                     [1.0] + part_weights + [1.0] * (fill + 1)))
    return rows if chunks else rows[:1]


def embed(models, rows, clip_skip):
    """Each chunk by itself; token states times weights, then the chunk's mean restored; joined along the tokens."""
    encoder, out = models["text_encoder"], []
    for ids, weights in rows:
        got = encoder(torch.tensor([ids]), output_hidden_states=True)
        z = got.last_hidden_state
        if clip_skip:
            norm = getattr(encoder, "text_model", encoder).final_layer_norm
            z = norm(got.hidden_states[-(clip_skip + 1)])
        if any(w != 1 for w in weights):
            before = z.mean()
            z = z * torch.tensor(weights, dtype=torch.float64)[None, :, None]
            z = z * (before / z.mean())
        out.append(z)
    return torch.cat(out, dim=1)


def run_text(models, run, store):
    tokenizer = models["tokenizer"]
    plain = [[(text, 1.0)] for text, _ in TEXTS]
    rows = [token_chunks(tokenizer, pieces if run["weighting"] else plain[i], run["chunks"])
            for i, (_, pieces) in enumerate(TEXTS)]
    rows.append(token_chunks(tokenizer, [(NEGATIVE, 1.0)], run["chunks"]))
    longest = max(len(r) for r in rows)
    empty = token_chunks(tokenizer, [], False)
    rows = [r + empty * (longest - len(r)) for r in rows]
    positive = torch.cat([embed(models, r, run["clip_skip"]) for r in rows[:2]])
    negative = torch.cat([embed(models, rows[2], 0)] * 2)
    store.output(f"{run['name']}.embeds", positive)
    pipe = make(StableDiffusionPipeline, models)
    final = pipe(prompt_embeds=positive, negative_prompt_embeds=negative, latents=states(PURPOSE_INIT, 0, [0, 0], 4),
                 eta=0.0, num_inference_steps=run["steps"], guidance_scale=run["guidance_scale"], width=WIDTH,
                 height=HEIGHT, output_type="latent").images
    store.output(f"{run['name']}.latents", final)


# ---- networks without prompt or autoencoder, whose states are pixels ----

PIXEL_RUNS = [{"name": "img2img", "sampling_method": "ddim", "steps": 10, "strength": 0.5, "guidance_scale": 1.0},
              {"name": "masked", "sampling_method": "ddim", "steps": 10, "strength": 0.7, "guidance_scale": 1.0}]


def pixel(out):
    """The loops of the pipelines above, written out: there are no such pipelines for these models."""
    config = {"sample_size": 24, "block_out_channels": [8, 16], "norm_num_groups": 4, "layers_per_block": 1,
              "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "attention_head_dim": 8,
              "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}
    network = {"name": "pixel", "class": UNet2DModel, "make": lambda: UNet2DModel(**config)}
    pixels, mask = picture("task", WIDTH, HEIGHT), mask_pixels()
    start = torch.from_numpy(pixels).double().permute(2, 0, 1)[None] / 255 * 2 - 1
    repaint = torch.from_numpy(mask > 0).double()[None, None]
    z = torch.from_numpy(philox(SEED, PURPOSE_INIT, 0, 0, HEIGHT * WIDTH * 3).reshape(1, HEIGHT, WIDTH, 3))
    z, store = z.permute(0, 3, 1, 2).contiguous(), golden.Store()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        heads = {"unet": golden.write_folder(network, pathlib.Path(folder) / "unet")}
        model = golden.load_double(network, pathlib.Path(folder) / "unet")
        for run in PIXEL_RUNS:
            scheduler = DDIMScheduler.from_config(SCHEDULER)
            scheduler.set_timesteps(run["steps"])
            timesteps = scheduler.timesteps[run["steps"] - int(run["steps"] * run["strength"]):]
            x = scheduler.add_noise(start, z, timesteps[:1])
            for i, t in enumerate(timesteps):
                x = scheduler.step(model(x, t.double()).sample, t, x, eta=0.0).prev_sample
                if run["name"] == "masked":
                    last = i + 1 == len(timesteps)
                    known = start if last else scheduler.add_noise(start, z, timesteps[i + 1:i + 2])
                    x = (1 - repaint) * known + repaint * x
            store.output(f"{run['name']}.latents", x)
    model_index = {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
                   "unet": ["diffusers", "UNet2DModel"]}
    golden.dump("task/pixel", {"about": "a DDPM", "model_index": model_index, "scheduler": SCHEDULER, "prompts": [""],
                               "runs": PIXEL_RUNS, "seed": SEED, "picture": zlib.crc32(pixels.tobytes()),
                               "mask": zlib.crc32(mask.tobytes()), "parts": heads}, store, out)


# ---- tiny autoencoders in their author's layout ----

def conv(n_in, n_out, **options):
    return nn.Conv2d(n_in, n_out, 3, padding=1, **options)


class TinyBlock(nn.Module):
    def __init__(self, n, pool=False):
        super().__init__()
        self.conv = nn.Sequential(conv(n, n), nn.ReLU(), conv(n, n), nn.ReLU(), conv(n, n))
        self.pool = nn.Sequential(nn.Conv2d(n, 4 * n, 1, bias=False), nn.GroupNorm(4, 4 * n), nn.ReLU(),
                                  nn.Conv2d(4 * n, n, 1, bias=False)) if pool else None

    def forward(self, x):
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x):
        return 3 * torch.tanh(x / 3)


def tiny_encoder(latent, n, pool):
    return nn.Sequential(conv(3, n), TinyBlock(n), conv(n, n, stride=2, bias=False), TinyBlock(n), TinyBlock(n),
                         conv(n, n, stride=2, bias=False), TinyBlock(n, pool), conv(n, latent))


def tiny_decoder(latent, n, pool):
    return nn.Sequential(Clamp(), conv(latent, n), nn.ReLU(), TinyBlock(n, pool), TinyBlock(n, pool),
                         nn.Upsample(scale_factor=2), conv(n, n, bias=False), TinyBlock(n),
                         nn.Upsample(scale_factor=2), conv(n, n, bias=False), TinyBlock(n), conv(n, 3))


def fill(model):
    """The formula's weights in place; their table for the test."""
    table, crc = {}, 0
    for name, value in sorted(model.state_dict().items()):
        offset, scale = golden.rule(name, list(value.shape))
        values = golden.formula(name, list(value.shape), offset, scale)
        crc = zlib.crc32(values.numpy().tobytes(), crc)
        value.copy_(values)
        table[name] = [offset, scale, list(value.shape)]
    return {"config": {}, "weights": table, "extra": {}, "weights_crc32": crc, "dtype": "F32"}


def tiny(out):
    store, heads = golden.Store(), {}
    halves = {"encoder": tiny_encoder(6, 8, True), "decoder": tiny_decoder(6, 8, True)}
    with torch.no_grad():
        for name, model in halves.items():
            heads[name] = {**fill(model), "file": f"tae_{name}.safetensors"}
            model.double().eval()
        image = picture("tiny", 24, 16)
        store.output("latents", halves["encoder"](torch.from_numpy(image).double().permute(2, 0, 1)[None] / 255))
        z = noise(3, 1, 6, 4, 6)
        store.input("z", z)
        store.output("sample", halves["decoder"](z.double()) * 2 - 1)
    golden.dump("task/tiny", {"about": "TAESD's own layout with the pools of the FLUX.2 variant", "parts": heads,
                              "width": 24, "height": 16, "picture": zlib.crc32(image.tobytes())}, store, out)


# ---- all ----

def case(name, class_name, in_channels, runs, run_one, out):
    store = golden.Store()
    heads, models = build(in_channels)
    with torch.no_grad():
        for run in runs:
            run_one(models, run, store)
    pixels, mask = picture("task", WIDTH, HEIGHT), mask_pixels()
    head = {"about": name, "model_index": index(class_name), "scheduler": SCHEDULER, "tokenizer": TOKENIZER,
            "prompts": PROMPTS, "texts": [t for t, _ in TEXTS], "negative_prompt": NEGATIVE, "runs": runs, "seed": SEED,
            "width": WIDTH, "height": HEIGHT, "picture": zlib.crc32(pixels.tobytes()),
            "mask": zlib.crc32(mask.tobytes()), "parts": heads}
    golden.dump(f"task/{name}", head, store, out)


def tasks(out, only):
    pixels, mask = picture("task", WIDTH, HEIGHT), mask_pixels()

    def inpaint(models, run, store):
        run_inpaint(models, run, store, pixels, mask)
    everything = {
        "img2img": lambda: case("img2img", "StableDiffusionImg2ImgPipeline", 4, IMG2IMG,
                                lambda m, r, s: run_img2img(m, r, s, pixels), out),
        "inpaint4": lambda: case("inpaint4", "StableDiffusionInpaintPipeline", 4, INPAINT, inpaint, out),
        "inpaint9": lambda: case("inpaint9", "StableDiffusionInpaintPipeline", 9, INPAINT, inpaint, out),
        "edit8": lambda: case("edit8", "StableDiffusionPipeline", 8, [], None, out),
        "pixel": lambda: pixel(out),
        "text": lambda: case("text", "StableDiffusionPipeline", 4, TEXT_RUNS, run_text, out),
        "tiny": lambda: tiny(out),
    }
    for name, write in everything.items():
        if f"task/{name}".startswith(only):
            write()
