"""Scripts that build what ships in ``assets/``: run once, not needed by users of the package."""
