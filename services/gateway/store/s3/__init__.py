"""The artifact store in a bucket of any S3 server."""
