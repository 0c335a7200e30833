"""`python -m uniadapter`, which `accelerate launch` and `torchrun` can start on several processes."""

from uniadapter.cli import main

raise SystemExit(main())
