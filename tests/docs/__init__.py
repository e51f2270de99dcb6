"""The documentation, checked: what can be generated from the code is, and the rest is read by tests."""
