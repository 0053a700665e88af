"""From a request's loans to stored decisions, for the API and the pages alike."""
