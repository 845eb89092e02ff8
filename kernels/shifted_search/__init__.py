"""Shifted non-local search (arXiv 2309.16849): a grid search round the place a flow points to."""
