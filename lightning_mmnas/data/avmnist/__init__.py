"""AV-MNIST: digits seen and heard."""
