"""Lipstick for lipsync: the denoiser `lipstick` and the audio encoder `mfcc-kaldi`."""
