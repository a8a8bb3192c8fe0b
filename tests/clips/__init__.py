"""Tiny videos, good and bad, made when they are needed."""
