"""Several processes with a device each, working on the same clip. On one rank everything here is the identity."""
