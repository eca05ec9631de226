"""The HTTP service: routes, keys, limits, metrics, and the page. Extra ``serve``."""
