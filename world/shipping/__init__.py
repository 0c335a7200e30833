"""From packages to `assets/`: the build in steps, the cards, the licences and the hashes."""
