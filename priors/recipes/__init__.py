"""How each shipped weight was made: the corpus, the training run, the numbers it reached."""
