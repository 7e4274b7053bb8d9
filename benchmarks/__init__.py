"""How fast the backend is, beside others: ``make bench``."""
