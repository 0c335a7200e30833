"""Training losses: contrastive (three kinds), matching, and the text decoder's; momentum encoders."""
