"""Language models: the way to them, what is said, what it costs. LiteLLM is imported in client.py alone."""
