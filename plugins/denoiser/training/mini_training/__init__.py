"""The training of `mini`, the small latent-diffusion model that ships inside the package; see README.md beside it."""
