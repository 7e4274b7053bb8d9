"""What calls to providers took: written beside the calls, summed up when somebody asks."""
