"""The mathematics of training a diffusion model: pure functions, tensors in, tensors out, the paper beside each."""
