"""What is trained for: losses, label-free criteria, regularisation, and several networks trained on the same views."""
