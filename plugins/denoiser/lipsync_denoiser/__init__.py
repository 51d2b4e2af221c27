"""First-party denoiser backends."""
