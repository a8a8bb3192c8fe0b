"""Does this model compute what the reference computed? One module for each folder of goldens."""
