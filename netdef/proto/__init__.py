"""The schema, generated from ``proto/netdef.proto`` by ``scripts/gen_proto``."""
