"""How the services of an app are put together."""
