"""Set up for every test: one thread, since models are tiny and cores are few, and signals as a terminal leaves them."""

import signal

import torch

from uniadapter.app.memory import keep_freed_memory

torch.set_num_threads(1)
keep_freed_memory()
# A shell without job control starts what runs in its background with Ctrl-C ignored, `nohup` with SIGHUP: what was
# ignored stays so in a run, and the tests are about the others.
for name, handler in (("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), handler)
