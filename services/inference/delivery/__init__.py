"""Model delivery: weights from a hub, or a mirror of it, onto a volume that inference pods share.

Read from the top: ``command`` (what people type; its grammar is in ``options``) > ``fetch`` (the use case) > ``gather`` (one
model) > ``download`` (one file) > ``hub`` (what the hub says, in words); ``conversion`` has another process write a file anew.
``volume`` knows what is on the disk, ``states`` lists it for the API. ``services.inference.models`` is the entry.
"""
