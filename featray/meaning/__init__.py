"""Check that a checkpoint's columns mean what they say: heads against each other and against geometry."""
