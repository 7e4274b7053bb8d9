"""The providers of chats: their settings, the requests to their OpenAI APIs, and which of them are down.

The failures of the openai client become our errors in :mod:`openai_api`.
"""
