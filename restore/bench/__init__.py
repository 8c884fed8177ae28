"""Benches: solvers against exact posteriors, priors against denoisers on held-out photographs."""
