"""Chats: a request becomes attempts at providers, and their answers the events that a client reads."""
