SELECT queued, running, succeeded, failed, cancelled FROM tally
