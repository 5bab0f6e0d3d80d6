"""Golden files beyond single networks: a whole tiny pipeline, and the image processor in front of CLIP."""
import pathlib
import tempfile
import zlib

import numpy as np
import torch
from diffusers import (AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler,
                       StableDiffusionPipeline, UNet2DConditionModel)
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import make_golden as golden
from golden_cases import noise

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOKENIZER = "weights/shapes-64/tokenizer"

SCHEDULER = {"_class_name": "DDIMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
             "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "v_prediction",
             "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None}
RUNS = [
    {"name": "ddim", "sampling_method": "ddim", "steps": 6, "guidance_scale": 3.0, "guidance_rescale": 0.0},
    {"name": "rescale", "sampling_method": "ddim", "steps": 6, "guidance_scale": 3.0, "guidance_rescale": 0.7},
    {"name": "euler", "sampling_method": "euler", "steps": 6, "guidance_scale": 3.0, "guidance_rescale": 0.0},
    {"name": "dpmpp_2m", "sampling_method": "dpm++2m", "steps": 6, "guidance_scale": 3.0, "guidance_rescale": 0.0},
    {"name": "no_guidance", "sampling_method": "ddim", "steps": 4, "guidance_scale": 1.0, "guidance_rescale": 0.0},
]
SCHEDULERS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "dpm++2m": DPMSolverMultistepScheduler}
PROMPTS = ["a red circle above a blue square", "two green stars"]
NEGATIVE = "a blurry picture"


def parts():
    text = CLIPTextConfig(vocab_size=918, bos_token_id=916, eos_token_id=917, pad_token_id=917, hidden_size=32,
                          intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32,
                          projection_dim=32)
    unet = {"sample_size": 8, "cross_attention_dim": 32, "block_out_channels": [16, 32], "norm_num_groups": 8,
            "attention_head_dim": [2, 4], "layers_per_block": 1, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}
    vae = {"block_out_channels": [8, 16, 16], "down_block_types": ["DownEncoderBlock2D"] * 3, "norm_num_groups": 4,
           "up_block_types": ["UpDecoderBlock2D"] * 3, "layers_per_block": 1, "sample_size": 32, "scaling_factor": 0.9}
    return {"text_encoder": {"name": "pipeline", "class": CLIPTextModel, "make": lambda: CLIPTextModel(text),
                             "rename": lambda n: "text_model." + n},
            "unet": {"name": "pipeline", "class": UNet2DConditionModel, "make": lambda: UNet2DConditionModel(**unet)},
            "vae": {"name": "pipeline", "class": AutoencoderKL, "make": lambda: AutoencoderKL(**vae)}}


def run_pipeline(pipe, run, latents, store):
    pipe.scheduler = SCHEDULERS[run["sampling_method"]].from_config(SCHEDULER)

    def keep(_pipe, i, _t, values):
        store.output(f"{run['name']}.latents.{i}", values["latents"])
        return {}
    final = pipe(PROMPTS, negative_prompt=[NEGATIVE] * len(PROMPTS), latents=latents.double(), eta=0.0,
                 num_inference_steps=run["steps"], guidance_scale=run["guidance_scale"],
                 guidance_rescale=run["guidance_rescale"], height=32, width=32, output_type="latent",
                 callback_on_step_end=keep).images
    store.output(f"{run['name']}.image", pipe.vae.decode(final / pipe.vae.config.scaling_factor).sample)


def tiny_pipeline():
    """The pipeline in double, its tokenizer and the descriptions of its networks."""
    heads, models = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, case in parts().items():
            heads[name] = golden.write_folder(case, pathlib.Path(folder) / name)
            models[name] = golden.load_double(case, pathlib.Path(folder) / name)
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / TOKENIZER)
    pipe = StableDiffusionPipeline(**models, tokenizer=tokenizer, scheduler=DDIMScheduler.from_config(SCHEDULER),
                                   safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe, tokenizer, heads


def pipeline(out):
    """The text encoder, UNet and VAE from the formula, the shipped tokenizer; five runs from the same first latents."""
    store = golden.Store()
    pipe, tokenizer, heads = tiny_pipeline()
    latents = noise(5, len(PROMPTS), 4, 8, 8)
    store.input("latents", latents)
    ids = tokenizer(PROMPTS + [NEGATIVE], padding="max_length", max_length=32, truncation=True, return_tensors="pt")
    store.input("input_ids", ids.input_ids)
    with torch.no_grad():
        store.output("prompt_embeds", pipe.text_encoder(ids.input_ids).last_hidden_state)
        for run in RUNS:
            run_pipeline(pipe, run, latents, store)
    index = {"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
             "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
             "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
             "safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    head = {"about": "a whole StableDiffusionPipeline", "model_index": index, "scheduler": SCHEDULER,
            "tokenizer": TOKENIZER, "prompts": PROMPTS, "negative_prompt": NEGATIVE, "runs": RUNS, "parts": heads}
    golden.dump("pipeline/tiny", head, store, out)


# ---- CLIPImageProcessor ----

def picture(name, width, height):
    """The same bytes as golden_picture in tests/util/golden_weights.c."""
    y, x = np.mgrid[0:height, 0:width]
    ramps = (255 * x // max(width - 1, 1), 255 * y // max(height - 1, 1), 255 * (x + y) // max(width + height - 2, 1))
    board = ((x // 8 + y // 8) & 1) * 60 - 30
    bits = golden.bits(name, width * height * 3).reshape(height, width, 3)
    grain = (bits >> np.uint32(26)).astype(np.int64) - 32
    return np.clip(np.stack(ramps, -1) + board[..., None] + grain, 0, 255).astype(np.uint8)


PICTURES = [(50, 73), (224, 100), (640, 480), (64, 64), (200, 33), (7, 5)]  # width, height
OPENAI = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
PROCESSORS = {
    "shapes_64": {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3,
                  "image_std": [0.5] * 3},
    "openai_224": {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, **OPENAI},
    "old_32": {"size": 32, "crop_size": 32, **OPENAI},  # plain numbers, as the oldest files have them
    "pad_40": {"size": {"shortest_edge": 24}, "crop_size": {"height": 40, "width": 31}, **OPENAI},  # crop beyond the picture
    "bilinear_35x20": {"size": {"height": 35, "width": 20}, "do_center_crop": False, "resample": 2, **OPENAI},
    "lanczos_30": {"size": {"shortest_edge": 30}, "crop_size": {"height": 30, "width": 30}, "resample": 1, **OPENAI},
}


def image_processors(out, only):
    for name, own in PROCESSORS.items():
        if not f"image_processor/{name}".startswith(only):
            continue
        config = {"do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True, "resample": 3,
                  "rescale_factor": 1 / 255, "image_processor_type": "CLIPImageProcessor", **own}
        processor = CLIPImageProcessorPil(**{k: v for k, v in config.items() if k != "image_processor_type"})
        store, pictures = golden.Store(), {}
        for width, height in PICTURES:
            label = f"{width}x{height}"
            pixels = picture(label, width, height)
            pictures[label] = [width, height, zlib.crc32(pixels.tobytes())]
            image = Image.fromarray(pixels)
            store.output(label, torch.from_numpy(np.asarray(processor(image, return_tensors="np").pixel_values)))
        golden.dump(f"image_processor/{name}", {"about": "CLIPImageProcessor", "config": config, "pictures": pictures},
                    store, out)
