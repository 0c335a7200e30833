"""What makes the method fast and is no part of it: attention, packing without padding, frozen linear layers."""
