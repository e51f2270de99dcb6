"""What operators see: logs, metrics, recordings."""
