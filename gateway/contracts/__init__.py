"""Contracts: JSON Schemas and OpenAPI documents, compiled once, that messages are held to.

Owns reading, importing and compiling them, and the checks themselves. Knows nothing of exchanges
and policies: what is checked comes in as bytes, text and pairs.
"""
