"""List videos: URIs, prefixes, manifests and shard files."""
