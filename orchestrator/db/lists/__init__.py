"""Lists for people: pages of processes and subscriptions, sorted, filtered and searched, all in SQL."""
