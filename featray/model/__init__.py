"""The multitask network: checkpoints, layers, engines, outputs."""
