"""The Kubernetes API: calls, and copies of collections that are kept up to date."""
