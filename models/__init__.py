"""Default models and their manifests; training lives beside them."""
