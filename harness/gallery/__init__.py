"""Pictures of which patches survive under each method, for people to look at."""
