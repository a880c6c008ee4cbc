"""How long residual quantization trains, on whatever device."""

ROUNDS = 3  # of refit and new codes, a stage
REFIT_STEPS = 8  # of conjugate gradients
REFIT_CONVERGED = 1e-16  # what is left of the squared gradient, next to rounding
