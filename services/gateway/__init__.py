"""The gateway: owns jobs, reads containers, not pixels."""

import os

# gRPC's core would add lines of its own to those of the log; whoever looks for something in it sets this.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
