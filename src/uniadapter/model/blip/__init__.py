"""Everything that knows the insides of transformers' BLIP."""
