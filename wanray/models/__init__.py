"""Wan's networks and numerics: diffusers' and transformers' modules, our solvers, loop and noise. No Ray."""
