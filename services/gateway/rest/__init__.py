"""The gateway over HTTP, for those who can't speak gRPC: the same use cases, in the style of OpenAI's video API."""
