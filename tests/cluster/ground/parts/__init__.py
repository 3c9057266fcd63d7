"""The parts of the ground: everything between a bare machine and a cluster with the project's images in it."""
