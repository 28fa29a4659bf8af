"""Events at times that a cron expression names: when, which were missed, and who fires them."""
