"""Benchmarks: the speed of the backend compared with other servers; ``make bench`` runs them."""
