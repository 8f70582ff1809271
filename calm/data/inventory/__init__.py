"""What is there of each dataset, beside what was published."""
