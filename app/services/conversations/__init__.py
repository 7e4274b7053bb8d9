"""Chats that are kept: before and after each answer, searched, exported, and fitted to a model's window."""
