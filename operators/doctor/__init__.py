"""The operator doctor: what it measures, on one size and on many."""
