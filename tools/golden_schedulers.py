"""Golden file of one tiny pipeline under every scheduler: final latents and picture of diffusers' own loop from given first
latents, with given noise in the place of what the scheduler would draw."""
import contextlib
import sys

import torch
from diffusers import schedulers as classes

import make_golden as golden
from golden_cases import noise
from golden_pipeline import NEGATIVE, PROMPTS, SCHEDULER, tiny_pipeline

N_STEPS = 20
SHARED = {k: v for k, v in SCHEDULER.items() if k != "_class_name"}
TRAILING = {"timestep_spacing": "trailing", "steps_offset": 0}
EPSILON = {"prediction_type": "epsilon"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
DPM, SINGLE, UNIPC = "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep"
RUNS = {  # class, what is different from SHARED, steps and eta where they are not the usual
    "ddim_eta": ("DDIM", {}, {"eta": 0.7}),
    "ddim_zero_snr": ("DDIM", {"rescale_betas_zero_snr": True, **TRAILING}),
    "ddpm": ("DDPM", EPSILON),
    "ddpm_large": ("DDPM", {"variance_type": "fixed_large", "thresholding": True, "sample_max_value": 3.0}),
    "pndm": ("PNDM", {"skip_prk_steps": True}),
    "pndm_runge_kutta": ("PNDM", EPSILON),
    "lms": ("LMSDiscrete", EPSILON),
    "euler_karras": ("EulerDiscrete", {"use_karras_sigmas": True}),
    "euler_trailing": ("EulerDiscrete", {**TRAILING, **EPSILON}),
    "euler_zero_snr": ("EulerDiscrete", {"rescale_betas_zero_snr": True, **TRAILING}),
    "euler_ancestral": ("EulerAncestralDiscrete", {}),
    "heun": ("HeunDiscrete", {"timestep_spacing": "linspace"}),
    "heun_exponential": ("HeunDiscrete", {"use_exponential_sigmas": True, **EPSILON}),
    "kdpm2": ("KDPM2Discrete", {}),
    "kdpm2_ancestral": ("KDPM2AncestralDiscrete", {"use_karras_sigmas": True}),
    "dpm_2m_karras": (DPM, {"use_karras_sigmas": True, **EPSILON}),
    "dpm_3m": (DPM, {"solver_order": 3}),
    "dpm_noise_3m": (DPM, {"solver_order": 3, "algorithm_type": "dpmsolver", **SIGMA_MIN}),
    "dpm_2m_sde": (DPM, {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}),
    "dpm_3m_sde": (DPM, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "use_beta_sigmas": True}),
    "dpm_flow": (DPM, FLOW),
    "single_2": (SINGLE, {"use_exponential_sigmas": True}),
    "single_3": (SINGLE, {"solver_order": 3, "lower_order_final": True, **EPSILON}),
    "single_3_heun": (SINGLE, {"solver_order": 3, "solver_type": "heun", **SIGMA_MIN}, {"steps": 21}),
    "single_2_sde": (SINGLE, {"algorithm_type": "sde-dpmsolver++", "thresholding": True, "sample_max_value": 4.0}),
    "deis": ("DEISMultistep", {}),
    "deis_3": ("DEISMultistep", {"solver_order": 3, **EPSILON}, {"steps": 12}),
    "unipc": (UNIPC, {}),
    "unipc_3_bh1": (UNIPC, {"solver_order": 3, "solver_type": "bh1", **SIGMA_MIN, **EPSILON}),
    "unipc_noise": (UNIPC, {"predict_x0": False, "use_karras_sigmas": True, **SIGMA_MIN}),
    "unipc_flow": (UNIPC, FLOW),
    "lcm": ("LCM", {}, {"steps": 6}),
    "tcd": ("TCD", {}, {"steps": 8, "eta": 0.3}),
}


@contextlib.contextmanager
def given_noise(scheduler, tensors):
    """What the class's module draws comes from the list, in order."""
    module, drawn = sys.modules[type(scheduler).__module__], iter(tensors)
    own, module.randn_tensor = getattr(module, "randn_tensor", None), lambda *_a, **_k: next(drawn)
    try:
        yield
    finally:
        module.randn_tensor = own


def schedulers(out):
    store, runs = golden.Store(), []
    latents, drawn = noise(5, len(PROMPTS), 4, 8, 8), noise(6, N_STEPS + 5, len(PROMPTS), 4, 8, 8)
    store.input("noise", drawn)
    pipe, _, _ = tiny_pipeline()
    for name, (class_name, keys, *more) in RUNS.items():
        more = {"steps": N_STEPS, "eta": 0.0, **(more[0] if more else {})}
        config = {"_class_name": class_name + "Scheduler", **SHARED, **keys}
        pipe.scheduler = getattr(classes, config["_class_name"]).from_config(config)
        with torch.no_grad(), given_noise(pipe.scheduler, drawn.double()):
            final = pipe(PROMPTS, negative_prompt=[NEGATIVE] * len(PROMPTS), latents=latents.double(), eta=more["eta"],
                         num_inference_steps=more["steps"], guidance_scale=3.0, height=32, width=32,
                         output_type="latent").images
            store.output(f"{name}.latents", final)
            image = pipe.vae.decode(final.double() / pipe.vae.config.scaling_factor).sample
            store.put(store.outputs, "out.", f"{name}.image", image, 512)
        runs.append({"name": name, "scheduler": config, "guidance_scale": 3.0, **more})
        print(name, float(final.abs().mean()), float(final.abs().max()))
    head = {"about": "pipeline/tiny under every scheduler", "prompts": PROMPTS, "negative_prompt": NEGATIVE, "runs": runs}
    golden.dump("pipeline/schedulers", head, store, out)
