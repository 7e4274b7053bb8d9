"""The languages that providers speak in a chat: OpenAI's, and Ollama's own."""
