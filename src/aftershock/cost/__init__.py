"""What a run costs: FLOPs of a model, prices and power of hardware, the ledger of a stage."""
