"""Background work: the queue, the workers that run pulls, and what is looked after now and then."""
