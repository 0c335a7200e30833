"""UniAdapter inside transformers' BLIP: adapt a pre-trained vision-language model with 1-2% of its parameters."""

__version__ = "0.1.0"
