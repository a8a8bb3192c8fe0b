"""What pools served last, for the time in which they have no worker: kept in the store, shared by all gateways."""
