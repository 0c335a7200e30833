"""Set up for every test: one thread, since models are tiny and cores are few."""

import torch

torch.set_num_threads(1)
