"""From a run folder to recommendations in original ids, explained."""
