"""Ranks of one worker on several machines: the rank host, which runs on each but the first, and how the worker reaches it."""
