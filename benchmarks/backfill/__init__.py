"""What a backfill costs beside s5cmd, rclone, ``aws s3 sync`` and a loop over ``Storage.save``."""
