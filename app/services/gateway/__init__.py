"""What other programs speak: their requests pass to a provider, and its answers back, as they are."""
