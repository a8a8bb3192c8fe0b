"""Requests of the gateway to addresses that users name: guarded, so that nobody reaches the inside of the network through it."""
