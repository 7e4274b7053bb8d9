"""The dialects of chat APIs: OpenAI's ``/v1/chat/completions``, and Ollama's own ``/api/chat``."""
