"""What the topics carry: one module a message type, typed; schemas/ says the same as JSON Schema."""
