"""What services that speak HTTP share: statuses of errors, byte ranges, files, a server. Uses Starlette and uvicorn, no gRPC."""
