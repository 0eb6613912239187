"""The gRPC door. grpc and protobuf are known here and nowhere else."""
