"""Golden files of whole pipelines with two text encoders, sizes and scores beside the prompt, or a guidance embedding."""
import pathlib
import tempfile

import torch
from diffusers import (AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline,
                       StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import make_golden as golden
from golden_cases import noise
from golden_pipeline import NEGATIVE, PROMPTS, ROOT, SCHEDULER, TOKENIZER

EPSILON = {**SCHEDULER, "prediction_type": "epsilon"}
SIZE = 32  # pixels a side; latents have a quarter
# tokenizer_2 pads with "!", which is id 0
PADDED = {"special_tokens_map.json": {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "!",
                                      "unk_token": "<|endoftext|>"},
          "tokenizer_config.json": {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "!",
                                    "unk_token": "<|endoftext|>", "model_max_length": 32,
                                    "tokenizer_class": "CLIPTokenizer"}}


def text_part(width, with_projection, **more):
    config = CLIPTextConfig(vocab_size=918, bos_token_id=916, eos_token_id=917, pad_token_id=917, hidden_size=width,
                            intermediate_size=2 * width, num_attention_heads=4, max_position_embeddings=32,
                            **{"num_hidden_layers": 3, "projection_dim": 24, **more})
    if with_projection:
        return {"name": "pipeline", "class": CLIPTextModelWithProjection,
                "make": lambda: CLIPTextModelWithProjection(config)}
    return {"name": "pipeline", "class": CLIPTextModel, "make": lambda: CLIPTextModel(config),
            "rename": lambda n: "text_model." + n}


def unet_part(cross, **more):
    config = {"sample_size": 8, "cross_attention_dim": cross, "block_out_channels": [16, 32], "norm_num_groups": 8,
              "attention_head_dim": [2, 4], "layers_per_block": 1, "use_linear_projection": True,
              "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
              "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], **more}
    return {"name": "pipeline", "class": UNet2DConditionModel, "make": lambda: UNet2DConditionModel(**config)}


def vae_part(scaling):
    config = {"block_out_channels": [8, 16, 16], "down_block_types": ["DownEncoderBlock2D"] * 3, "norm_num_groups": 4,
              "up_block_types": ["UpDecoderBlock2D"] * 3, "layers_per_block": 1, "sample_size": SIZE,
              "scaling_factor": scaling}
    return {"name": "pipeline", "class": AutoencoderKL, "make": lambda: AutoencoderKL(**config)}


SIZED = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "transformer_layers_per_block": [1, 2]}
CASES = {
    "xl": {
        "about": "StableDiffusionXLPipeline: two encoders, the second padded with id 0, zeroed negative, sizes, clip_skip",
        "class": StableDiffusionXLPipeline, "force_zeros_for_empty_prompt": True,
        "parts": {"text_encoder": text_part(32, False), "text_encoder_2": text_part(40, True, hidden_act="gelu"),
                  "unet": unet_part(72, projection_class_embeddings_input_dim=24 + 6 * 8, **SIZED), "vae": vae_part(0.13025)},
        "runs": [
            {"name": "negative", "negative_prompt": NEGATIVE, "image": True},
            {"name": "zeros", "sampling_method": "euler"},
            {"name": "sizes", "original_size": [96, 128], "crop": [8, 4], "target_size": [64, 48],
             "negative_original_size": [40, 48], "negative_crop": [0, 2], "negative_target_size": [100, 90]},
            {"name": "clip_skip", "clip_skip": 1, "negative_prompt": "", "guidance_rescale": 0.5},
            {"name": "no_guidance", "guidance_scale": 1.0},
            {"name": "turbo", "guidance_scale": 0.0, "steps": 1, "sampling_method": "euler"},
        ]},
    "refiner": {
        "about": "a refiner: the second encoder alone, an aesthetic score in place of the target size, no zeroed negative",
        "class": StableDiffusionXLImg2ImgPipeline, "force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True,
        "parts": {"text_encoder_2": text_part(40, True, hidden_act="gelu"),
                  "unet": unet_part(40, projection_class_embeddings_input_dim=24 + 5 * 8, **SIZED), "vae": vae_part(0.13025)},
        "runs": [
            {"name": "scores", "original_size": [96, 128], "crop": [8, 4], "negative_original_size": [40, 48],
             "negative_crop": [0, 2], "aesthetic_score": 7.5, "negative_aesthetic_score": 1.5, "negative_prompt": NEGATIVE},
            {"name": "unsaid", "sampling_method": "euler"},
        ]},
    "guided": {
        "about": "a distilled network that reads the guidance scale: no doubled batch, SD1's text",
        "class": StableDiffusionPipeline,
        "parts": {"text_encoder": text_part(32, False), "unet": unet_part(32, time_cond_proj_dim=12), "vae": vae_part(0.18215)},
        "runs": [
            {"name": "eight", "guidance_scale": 8.5, "negative_prompt": NEGATIVE},
            {"name": "clip_skip", "guidance_scale": 1.0, "clip_skip": 2},
        ]},
}
DEFAULTS = {"sampling_method": "ddim", "steps": 4, "guidance_scale": 3.0, "guidance_rescale": 0.0, "clip_skip": 0,
            "negative_prompt": None}
SIZE_KEYS = {"original_size": "original_size", "crop": "crops_coords_top_left", "target_size": "target_size",
             "negative_original_size": "negative_original_size", "negative_crop": "negative_crops_coords_top_left",
             "negative_target_size": "negative_target_size"}


def run_some(pipe, run, prompts, latents):
    """Latents after every step of these prompts as one batch."""
    given = {SIZE_KEYS[k]: tuple(run[k]) for k in SIZE_KEYS if k in run}
    given.update({k: run[k] for k in ("aesthetic_score", "negative_aesthetic_score") if k in run})
    if run["negative_prompt"] is not None:
        given["negative_prompt"] = [run["negative_prompt"]] * len(prompts)
    if run["clip_skip"]:
        given["clip_skip"] = run["clip_skip"]
    if isinstance(pipe, StableDiffusionXLImg2ImgPipeline):  # the picture is not read where latents are given
        pipe.scheduler.set_timesteps(run["steps"])
        latents = latents * pipe.scheduler.init_noise_sigma
        given.update(image=torch.zeros(len(prompts), 3, SIZE, SIZE), strength=1.0)
    else:
        given.update(height=SIZE, width=SIZE)
    steps = []

    def keep(_pipe, _i, _t, values):
        steps.append(values["latents"])
        return {}
    pipe(prompts, latents=latents.double(), eta=0.0, num_inference_steps=run["steps"], output_type="latent",
         guidance_scale=run["guidance_scale"], guidance_rescale=run["guidance_rescale"], callback_on_step_end=keep, **given)
    return steps


def run_one(pipe, run, latents, store):
    pipe.scheduler = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}[run["sampling_method"]].from_config(EPSILON)
    if "negative_target_size" in run:  # with several prompts the reference gives negative sizes to the wrong rows
        alone = [run_some(pipe, run, [p], latents[i:i + 1]) for i, p in enumerate(PROMPTS)]
        steps = [torch.cat(rows) for rows in zip(*alone)]
    else:
        steps = run_some(pipe, run, PROMPTS, latents)
    for i, x in enumerate(steps):
        store.output(f"{run['name']}.latents.{i}", x)
    if run.get("image"):
        store.output(f"{run['name']}.image", pipe.vae.decode(steps[-1] / pipe.vae.config.scaling_factor).sample)


def whole(case, models, tokenizers):
    if case["class"] is StableDiffusionPipeline:
        object.__setattr__(models["text_encoder"], "text_model", models["text_encoder"])  # an older attribute, for clip_skip
        pipe = case["class"](**models, tokenizer=tokenizers[0], scheduler=DDIMScheduler.from_config(EPSILON),
                             safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    else:
        own = {k: case[k] for k in ("force_zeros_for_empty_prompt", "requires_aesthetics_score") if k in case}
        pipe = case["class"](**{"text_encoder": None, **models}, tokenizer=tokenizers[0] if "text_encoder" in models else None,
                             tokenizer_2=tokenizers[1], scheduler=DDIMScheduler.from_config(EPSILON),
                             add_watermarker=False, **own)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def model_index(case):
    index = {"_class_name": case["class"].__name__, "scheduler": ["diffusers", "DDIMScheduler"]}
    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        own = case["parts"].get(part)
        library = "diffusers" if part in ("unet", "vae") else "transformers"
        index[part] = [library, own["class"].__name__] if own else [None, None]
        if own and part.startswith("text"):
            index["tokenizer" + part[len("text_encoder"):]] = ["transformers", "CLIPTokenizer"]
    index.update({k: case[k] for k in ("force_zeros_for_empty_prompt", "requires_aesthetics_score") if k in case})
    return index


def pipeline(name, out):
    case, store, heads, models = CASES[name], golden.Store(), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for part, own in case["parts"].items():
            heads[part] = golden.write_folder(own, pathlib.Path(folder) / part)
            models[part] = golden.load_double(own, pathlib.Path(folder) / part)
    tokenizers = [CLIPTokenizer.from_pretrained(ROOT / TOKENIZER),
                  CLIPTokenizer.from_pretrained(ROOT / TOKENIZER, pad_token="!")]
    pipe = whole(case, models, tokenizers)
    latents = noise(5, len(PROMPTS), 4, SIZE // 4, SIZE // 4)
    store.input("latents", latents)
    runs = [{**DEFAULTS, **run} for run in case["runs"]]
    with torch.no_grad():
        for run in runs:
            run_one(pipe, run, latents, store)
    head = {"about": case["about"], "model_index": model_index(case), "scheduler": EPSILON}
    for part, files in (("tokenizer", {}), ("tokenizer_2", PADDED)):
        if part in head["model_index"]:
            head[part] = TOKENIZER
            if files:
                head[part + "_files"] = files
    golden.dump(f"pipeline/{name}", {**head, "prompts": PROMPTS, "runs": runs, "parts": heads}, store, out)


def pipelines(out, only):
    for name in CASES:
        if f"pipeline/{name}".startswith(only):
            pipeline(name, out)
