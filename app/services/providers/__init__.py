"""The providers of chats: their settings, the official openai client for each, and which are down.

The failures of the openai client become ours in :mod:`openai_api`.
"""
