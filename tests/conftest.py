"""Set up for every test: one thread, since models are tiny and cores are few."""

import torch

from uniadapter.memory import keep_freed_memory

torch.set_num_threads(1)
keep_freed_memory()
