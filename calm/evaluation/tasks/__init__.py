"""The tasks that a trained model is judged by: one file each, named as the task."""
