"""What the operator tells about itself: JSON logs, metrics, health endpoints."""
