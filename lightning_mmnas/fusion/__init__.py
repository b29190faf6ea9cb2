"""What is built and trained: the supernet of a space, the network of a genotype, and all that they are made of."""
