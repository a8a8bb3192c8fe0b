"""The inference pods: who finds them, how each is, and the conversation with one."""
