"""What the primitives compute, in mathematical notation."""

FORMULAS = {
    "zero": "0",
    "sum": "{0} + {1}",
    "attention": "norm(softmax({0} {1}ᵀ / √c) {1})",
    "linear_glu": "U [{0}; {1}] ⊙ sigmoid(V [{0}; {1}])",
    "concat_fc": "relu(W [{0}; {1}])",
}
"""What the primitives compute of two states, batch norm and dropout left out."""


def formula(primitive: str, first: str, second: str) -> str:
    """Returns what a primitive computes of two states, in mathematical notation."""
    short = primitive.rpartition(".")[2] + "({0}, {1})"  # a user's class speaks for itself
    return FORMULAS.get(primitive, short).format(first, second)
