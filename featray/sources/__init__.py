"""Listing videos: URIs, prefixes, manifests, shard files."""
