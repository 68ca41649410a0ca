"""The loss of Stable Diffusion training in plain PyTorch, written from the formulae alone; imports nothing of the project.

Loops over samples where the project works on whole batches, so that the two share as little as possible.
"""
import math

import torch
import torch.nn.functional as F

DEFAULTS = {
    "prediction": "epsilon", "zero_terminal_snr": False,
    "noise_offset": 0.0, "adaptive_noise_scale": 0.0, "multires_discount": 0.3, "ip_noise_gamma": 0.0,
    "loss_type": "l2", "huber_schedule": "snr", "huber_c": 0.1, "huber_scale": 1.0,
    "min_snr_gamma": 0.0, "scale_v_pred": False, "v_pred_like": 0.0, "debiased": False,
}  # fmt: skip


def alphas_cumprod(zero_terminal_snr):
    values, product = [], 1.0
    for i in range(1000):
        root_beta = math.sqrt(0.00085) + (math.sqrt(0.012) - math.sqrt(0.00085)) * i / 999
        product *= 1 - root_beta**2
        values.append(product)
    if zero_terminal_snr:
        first, last = math.sqrt(values[0]), math.sqrt(values[-1])
        values = [((math.sqrt(value) - last) * first / (first - last)) ** 2 for value in values]
    return values


def make_noise(settings, latents, given):
    """`given`: noise, and where asked for offset_noise [B, C, 1, 1], octaves (list of [B, C, h_i, w_i])."""
    noise = given["noise"].clone()
    if settings["noise_offset"]:
        for b in range(latents.shape[0]):
            for c in range(latents.shape[1]):
                strength = settings["noise_offset"]
                if settings["adaptive_noise_scale"]:
                    strength = max(0.0, strength + settings["adaptive_noise_scale"] * abs(latents[b, c].mean().item()))
                noise[b, c] += strength * given["offset_noise"][b, c].item()
    if "octaves" in given:
        for i, octave in enumerate(given["octaves"]):
            stretched = F.interpolate(octave, size=noise.shape[2:], mode="bilinear", align_corners=False)
            noise = noise + stretched * settings["multires_discount"] ** i
        noise = noise / torch.sqrt(((noise - noise.mean()) ** 2).sum() / (noise.numel() - 1))
    return noise


def element_loss(settings, difference, t, alpha_bar):
    if settings["loss_type"] == "l2":
        return difference * difference
    if settings["loss_type"] == "l1":
        return abs(difference)
    if settings["huber_schedule"] == "constant":
        c = settings["huber_c"] * settings["huber_scale"]
    elif settings["huber_schedule"] == "exponential":
        c = settings["huber_scale"] * math.exp(t * math.log(settings["huber_c"]) / 1000)
    else:
        sigma = math.sqrt((1 - alpha_bar) / alpha_bar) if alpha_bar > 0 else math.inf
        c = (1 - settings["huber_c"]) / (1 + sigma) ** 2 + settings["huber_c"]
    distance = torch.sqrt(difference * difference + c * c) - c
    return {"huber": 2 * c, "smooth_l1": 2}[settings["loss_type"]] * distance


def weight(settings, alpha_bar):
    snr = alpha_bar / (1 - alpha_bar)
    plain = alphas_cumprod(False)[-1]
    floored = max(snr, plain / (1 - plain))  # divisions by the SNR stay finite with zero terminal SNR
    result = 1.0
    if settings["min_snr_gamma"]:
        smaller = min(snr, settings["min_snr_gamma"])
        if settings["prediction"] == "v":
            result *= smaller / (snr + 1)
        else:
            result *= smaller / snr if snr > 0 else 1.0
    snr, floored = min(snr, 1000.0), min(floored, 1000.0)
    if settings["scale_v_pred"]:
        result *= snr / (snr + 1)
    if settings["v_pred_like"]:
        result += result * settings["v_pred_like"] / (floored / (floored + 1))
    if settings["debiased"]:
        result *= 1 / (snr + 1) if settings["prediction"] == "v" else 1 / math.sqrt(floored)
    return result


def training_loss(model, latents, timesteps, given, loss_weights, masks=None, **changes):
    """`model(noisy, timesteps)` predicts; `given` holds the noise tensors. Returns the loss, a scalar with gradients."""
    settings = DEFAULTS | changes
    table = alphas_cumprod(settings["zero_terminal_snr"])
    noise = make_noise(settings, latents, given)
    noisy, targets = [], []
    for b, t in enumerate(timesteps.tolist()):
        signal, spread = math.sqrt(table[t]), math.sqrt(1 - table[t])
        seen = noise[b] + settings["ip_noise_gamma"] * given["ip_noise"][b] if settings["ip_noise_gamma"] else noise[b]
        noisy.append(signal * latents[b] + spread * seen)
        targets.append(noise[b] if settings["prediction"] == "epsilon" else signal * noise[b] - spread * latents[b])
    predictions = model(torch.stack(noisy), timesteps)
    total = 0.0
    for b, t in enumerate(timesteps.tolist()):
        loss = element_loss(settings, predictions[b] - targets[b], t, table[t])
        if masks is not None:
            factor = masks.shape[1] // latents.shape[2]
            loss = loss * F.avg_pool2d(masks[b][None], factor)
        total = total + loss.mean() * loss_weights[b] * weight(settings, table[t])
    return total / len(timesteps)
