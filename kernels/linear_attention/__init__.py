"""Linear cross-attention with two softmaxes (Shen et al. 2018), cost linear in the pixels."""
