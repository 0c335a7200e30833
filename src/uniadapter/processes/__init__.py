"""Several processes that compute as one would: rows gathered in rank order, draws that no rank changes."""
