"""The API that other programs speak: OpenAI's. Requests and answers are passed on as they are."""
