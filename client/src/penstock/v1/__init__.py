"""Generated from protos/penstock/v1; `make protos` makes it anew."""
