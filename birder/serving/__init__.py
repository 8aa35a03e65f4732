"""A server of models: an interface over HTTP, and a page; see docs/serving.md. The client needs none of the server."""
