"""The models that are installed on an Ollama server: listed, loaded, made, deleted, and their disk space."""
