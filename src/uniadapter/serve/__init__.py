"""A server that keeps an index and its models in memory: search, questions, captions, and the page for them."""
