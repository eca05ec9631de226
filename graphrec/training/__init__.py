"""Training that selects on validation, refits, and resumes bit-equal."""
