"""Search: which noise levels, and which rule at each step, suit a prior and a few network calls."""
