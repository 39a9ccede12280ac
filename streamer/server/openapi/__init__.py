"""The OpenAPI document, by subject."""
