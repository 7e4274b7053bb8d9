"""The hostile run: clients, providers, disks, clocks and kills that try to stop the backend, lose its data or get in.

``python -m tests.hostile`` starts real processes, attacks them, and prints one table: what was tried, what was
survived, what was lost. ``scenarios/`` has one module for each attack. pytest does not collect it.
"""
