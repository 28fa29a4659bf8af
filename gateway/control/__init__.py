"""The gateway's own calls to the control plane: identity providers, token endpoints, alerts."""
