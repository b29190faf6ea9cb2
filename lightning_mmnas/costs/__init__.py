"""What architectures cost: parameters, FLOPs and latency, counted or measured, and budgets."""
