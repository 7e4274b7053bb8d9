"""Which models a provider has: the one that answers by default, and what to say of one that is absent."""
