"""The work, without Flask: each package here is a noun of the API and changes for one reason.

The contract in setup.cfg says which package may know which: from the top, jobs and conversations; chat,
gateway and updates; catalog, models and pulls; ollama; providers and settings; usage.
"""
