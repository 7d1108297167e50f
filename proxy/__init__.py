"""The shell around the decisions: HTTP and WebSocket in, HTTP and WebSocket out."""
