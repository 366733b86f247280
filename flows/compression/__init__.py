"""From a job to compressed files and their proof: the `compress` flow, its stations and its books."""
