"""What earlier releases wrote into their stores: ``python -m tests.recorded`` records what this one writes."""
