"""Speed, not method: attention, packing without padding, and products with frozen matrices."""
