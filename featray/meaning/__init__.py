"""Check that a checkpoint's columns mean what their names say, by comparing heads with each other and with geometry."""
