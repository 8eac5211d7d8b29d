"""What stands behind the layers: stacks of them, and layers of given parameters."""
