"""Stands before the real package on the operator's path: kopf loads the official client wherever it is installed, which
costs sixteen megabytes, and the image does not have it."""

raise ImportError("the operator's image has no package kubernetes")
