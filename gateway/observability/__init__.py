"""What the gateway says about its work: metrics, access log, application log, trace context."""
