"""What one call costs, and what a backfill costs, each beside what else there is, in one run on one machine."""
