"""Check an installation, and name the fix for whatever fails."""
