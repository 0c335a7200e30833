"""What families of two towers without fusion share: layers before whose parts a norm stands, pooling, contrast."""
