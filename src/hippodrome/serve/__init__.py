"""The server: a model behind the OpenAI protocol, all requests written together (FastAPI, uvicorn)."""
