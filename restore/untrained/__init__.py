"""Networks that see no training data: they are fitted to the one measurement at hand."""
