#!/bin/sh
# Write the gRPC code of protos/ to services/common/pb. Usage: scripts/proto.sh PYTHON, one that has grpcio-tools.
set -eu
cd "$(dirname "$0")/.."
mkdir -p services/common/pb
"$1" -m grpc_tools.protoc -Iservices/common/pb=protos --python_out=. --pyi_out=. --grpc_python_out=. protos/seedvr2/v1/*.proto
