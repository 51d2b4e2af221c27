"""LatentSync's parts in PyTorch, for the denoiser `latentsync-torch`; importing this package imports no torch."""
