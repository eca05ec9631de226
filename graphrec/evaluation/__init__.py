"""Full-ranking evaluation: top-k, metrics, intervals and tests."""
