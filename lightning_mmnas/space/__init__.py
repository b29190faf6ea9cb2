"""What can be searched: a space of fusion architectures, and its points, the genotypes."""
