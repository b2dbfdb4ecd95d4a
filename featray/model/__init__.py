"""The multitask network: checkpoints, layers, engines and outputs."""
