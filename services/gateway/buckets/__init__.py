"""Users' buckets: sources that are read from there, results that are written there too, only where the operator allows it."""
